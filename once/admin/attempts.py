"""The history of attempts, of all routines: read only."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.db import DEFAULT_DB_ALIAS, Error, connections, router
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from once import words
from once.models import Attempt, Routine

if TYPE_CHECKING:
    from once.status.past import PastAttempt


T = TypeVar("T")


def in_readers_language(view: Callable[..., T]) -> Callable[..., T]:
    """Return a view that has its page say words that are shared with the terminal translated."""

    @wraps(view)
    def translated(*args: Any, **kwargs: Any) -> T:
        with words.translated():
            response = view(*args, **kwargs)
            if isinstance(response, TemplateResponse):
                response.render()  # here, because its template asks for words
            return response

    return translated


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # takes none when it runs
    """A page without add, change and delete, because the protocol alone writes the record."""

    class Media:
        css = {"all": ["once/admin.css"]}

    def _never(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_add_permission = has_change_permission = has_delete_permission = _never


class DatabaseFilter(admin.SimpleListFilter):
    """Keeps the list to one database, because each has attempts of its own."""

    title = _("database")
    parameter_name = "database"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        aliases = _aliases()
        return [(alias, alias) for alias in aliases] if len(aliases) > 1 else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset  # which AttemptAdmin took from that database

    def choices(self, changelist: ChangeList) -> Any:
        selected = self.value() or _aliases()[0]
        for alias, title in self.lookup_choices:
            yield {
                "selected": alias == selected,
                "query_string": changelist.get_query_string({self.parameter_name: alias}),
                "display": title,
            }


class AttemptList(ChangeList):
    """Leads to the page of an attempt also where it is in another database."""

    def url_for_result(self, result: Model) -> str:
        query = urlencode({DatabaseFilter.parameter_name: result._state.db})
        return f"{super().url_for_result(result)}?{query}"


class AttemptAdmin(ReadOnlyAdmin):
    """Attempts, the last one first."""

    list_display = ["routine", "number", "state", "trigger", "began"]
    list_filter = [DatabaseFilter, "state", "trigger"]
    search_fields = ["routine", "key", "host", "release", "user", "reason", "error"]
    ordering = ["-pk"]
    sortable_by = ["routine", "number", "began"]
    list_per_page = 50
    show_full_result_count = False
    fieldsets = [
        (None, {"fields": ["routine", "version", "scope_key", "number", "state", "trigger"]}),
        (_("Run"), {"fields": ["began", "ended", "took", "host", "pid", "release", "key"]}),
        (_("Decision"), {"fields": ["user", "reason"]}),
        (_("Progress"), {"fields": ["processed", "resumed", "total", "cursor"]}),
        (_("Failure"), {"fields": ["failure", "retry"]}),
    ]

    readonly_fields = ["began", "ended", "took", "failure"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        aliases = _aliases()
        alias = request.GET.get(DatabaseFilter.parameter_name)
        using = alias if alias in aliases else aliases[0]
        return super().get_queryset(request).using(using)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AttemptList

    def get_fieldsets(self, request: HttpRequest, obj: Attempt | None = None) -> Any:
        """Return those groups that say something."""
        empty = set()
        if obj is not None:
            empty |= set() if obj.user or obj.reason else {"user"}
            empty |= set() if obj.cursor else {"cursor"}
            empty |= set() if obj.error or not obj.retry else {"failure"}
        return [group for group in self.fieldsets if not empty & set(group[1]["fields"])]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        attempt = context.get("original")
        # A site of one's own may have attempts alone.
        if attempt is not None and self.admin_site.is_registered(Routine):
            context["routine_url"] = reverse(
                "admin:once_routine_change",
                args=(quote(f"{attempt._state.db}:{attempt.routine}"),),
                current_app=self.admin_site.name,
            )
        return super().render_change_form(request, context, *args, **kwargs)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._shown(super().changelist_view, request, *args, **kwargs)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._shown(super().changeform_view, request, *args, **kwargs)

    @admin.display(description=_("began"), ordering="started_at")
    def began(self, attempt: Attempt) -> str:
        return _row(attempt).began

    @admin.display(description=_("ended"))
    def ended(self, attempt: Attempt) -> str | None:
        return _row(attempt).ended or None

    @admin.display(description=_("took"))
    def took(self, attempt: Attempt) -> str | None:
        return _row(attempt).lasted or None

    @admin.display(description=_("error"))
    def failure(self, attempt: Attempt) -> SafeString | None:
        """Return the error, and below it where it came from."""
        if not attempt.error:
            return None
        return format_html(
            '<strong class="once-error">{}</strong>\n<pre class="once-traceback">{}</pre>',
            attempt.error_line,
            _row(attempt).trace,
        )

    def _shown(
        self, view: Callable[..., HttpResponse], request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Return a page of Django's, or lead to a page that lives without the record."""
        try:
            return in_readers_language(view)(request, *args, **kwargs)
        except Error as error:
            from once.text import one_line  # which a process that shows no page does without

            self.message_user(request, one_line(error), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))


def _row(attempt: Attempt) -> "PastAttempt":
    from once.status.past import PastAttempt  # which loads most of the package

    return PastAttempt(attempt)


def _aliases() -> list[str]:
    """Return the databases that may have a record; first the one that is shown by default."""
    found = [alias for alias in connections if router.allow_migrate_model(alias, Attempt)]
    return sorted(found, key=lambda alias: alias != DEFAULT_DB_ALIAS) or [DEFAULT_DB_ALIAS]
