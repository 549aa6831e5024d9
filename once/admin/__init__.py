"""Routines and their attempts in Django's admin.

Imported by the admin alone. A site of your own registers them as any other model::

    site.register(Attempt, AttemptAdmin)
    site.register(Routine, RoutineAdmin)
"""

from collections.abc import Callable

from django.contrib import admin
from django.http import HttpResponseBase
from django.urls import URLPattern, path

from once.admin.attempts import AttemptAdmin, ReadOnlyAdmin, in_readers_language
from once.models import Attempt, Routine

__all__ = ["AttemptAdmin", "RoutineAdmin"]


class RoutineAdmin(ReadOnlyAdmin):
    """Routines. Its two pages are views of their own, because most of them have no row."""

    def get_urls(self) -> list[URLPattern]:
        # Because pages load most of the package, and every process has the admin, not before.
        from once.admin.pages import ListPage, Page, RoutinePage
        from once.views import outside_transactions

        def wrapped(page: type[Page]) -> Callable[..., HttpResponseBase]:
            view = in_readers_language(page.as_view(admin=self))
            return self.admin_site.admin_view(outside_transactions(view))

        return [
            path("", wrapped(ListPage), name="once_routine_changelist"),
            path("<path:object_id>/change/", wrapped(RoutinePage), name="once_routine_change"),
        ]


admin.site.register(Attempt, AttemptAdmin)
admin.site.register(Routine, RoutineAdmin)
