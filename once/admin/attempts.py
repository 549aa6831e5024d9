"""The history of attempts, of all routines: read only."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.db import DEFAULT_DB_ALIAS, Error, connections, router
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from once.models import Attempt, Routine

__all__ = ["AttemptAdmin", "ReadOnlyAdmin"]


#: No primary key has more.
_DIGITS = 18

if TYPE_CHECKING:
    from once.admin.shown import Try

    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin  # takes no types when it runs


class ReadOnlyAdmin(_ModelAdmin):
    """What is recorded is the protocol's: nobody adds, changes or deletes it by hand."""

    class Media:
        css = {"all": ["once/admin.css"]}

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, *args: Any) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, *args: Any) -> bool:
        """Nobody."""
        return False


class AttemptList(ChangeList):
    """Finds the page of an attempt also where it is in another database."""

    def url_for_result(self, result: Model) -> str:
        from once.admin.shown import named

        using = result._state.db
        name = result.pk if using in (None, DEFAULT_DB_ALIAS) else named(using, result.pk)
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_change",
            args=(quote(name),),
            current_app=self.model_admin.admin_site.name,
        )


class DatabaseFilter(admin.SimpleListFilter):
    """Each database has attempts of its own."""

    title = _("database")
    parameter_name = "database"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        aliases = _aliases()
        return [(alias, alias) for alias in aliases] if len(aliases) > 1 else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset  # which AttemptAdmin took from that database

    def choices(self, changelist: ChangeList) -> Any:
        shown = self.value() or _usual()
        for alias, title in self.lookup_choices:
            yield {
                "selected": alias == shown,
                "query_string": changelist.get_query_string({self.parameter_name: alias}),
                "display": title,
            }


class AttemptAdmin(ReadOnlyAdmin):
    """Attempts, the last one first."""

    list_display = ["routine", "number", "state", "began"]
    list_filter = [DatabaseFilter, "state", "trigger"]
    search_fields = ["routine", "key", "host", "release", "user", "reason", "error"]
    ordering = ["-pk"]
    sortable_by = ["routine", "number", "began"]
    list_per_page = 50
    show_full_result_count = False
    fieldsets = [
        (None, {"fields": ["routine", "version", "scope_key", "number", "state", "trigger"]}),
        (_("Run"), {"fields": ["began", "ended", "lasted", "host", "pid", "release", "key"]}),
        (_("Decision"), {"fields": ["user", "reason"]}),
        (_("Progress"), {"fields": ["processed", "resumed", "total", "cursor"]}),
        (_("Failure"), {"fields": ["failure", "retry"]}),
    ]

    readonly_fields = ["began", "ended", "lasted", "failure"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        alias = request.GET.get(DatabaseFilter.parameter_name)
        using = alias if alias in _aliases() else _usual()
        return super().get_queryset(request).using(using)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        from once.admin.shown import split

        using, pk = split(object_id) if ":" in object_id else (_usual(), object_id)
        if using not in _aliases() or not pk.isdecimal() or len(pk) > _DIGITS:
            return None
        return super().get_queryset(request).using(using).filter(pk=pk).first()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AttemptList

    def get_fieldsets(self, request: HttpRequest, obj: Attempt | None = None) -> Any:
        """Those of its groups that say something."""
        empty = set()
        if obj is not None:
            empty |= set() if obj.user or obj.reason else {"user"}
            empty |= set() if obj.cursor else {"cursor"}
            empty |= set() if obj.error or not obj.retry else {"failure"}
        return [one for one in self.fieldsets if not empty & set(one[1]["fields"])]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        from once.admin.shown import named

        attempt = context.get("original")
        # A site of one's own may have attempts alone.
        if attempt is not None and self.admin_site.is_registered(Routine):
            context["routine_url"] = reverse(
                "admin:once_routine_change",
                args=(quote(named(attempt._state.db, attempt.routine)),),
                current_app=self.admin_site.name,
            )
        return super().render_change_form(request, context, *args, **kwargs)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().changelist_view(request, extra_context)
        except Error as error:
            return self._unreadable(request, error)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except Error as error:
            return self._unreadable(request, error)

    @admin.display(description=_("began"), ordering="started_at")
    def began(self, attempt: Attempt) -> str:
        """When, by the database's clock."""
        return _shown(attempt).began

    @admin.display(description=_("ended"))
    def ended(self, attempt: Attempt) -> str | None:
        """When, by the database's clock."""
        return _shown(attempt).ended or None

    @admin.display(description=_("took"))
    def lasted(self, attempt: Attempt) -> str | None:
        """How long."""
        return _shown(attempt).lasted or None

    @admin.display(description=_("error"))
    def failure(self, attempt: Attempt) -> SafeString | None:
        """The error, and below it where it came from."""
        if not attempt.error:
            return None
        return format_html(
            '<strong class="once-error">{}</strong>\n<pre class="once-traceback">{}</pre>',
            _shown(attempt).error_line,
            attempt.error.strip(),
        )

    def _unreadable(self, request: HttpRequest, error: Error) -> HttpResponse:
        """To a page that lives without the record."""
        from once.text import one_line

        self.message_user(request, one_line(error), messages.ERROR)
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))


def _shown(attempt: Attempt) -> "Try":
    from once.admin.shown import Try

    return Try(attempt=attempt, using=attempt._state.db or DEFAULT_DB_ALIAS)


def _aliases() -> list[str]:
    """The databases that may have a record."""
    return [alias for alias in connections if router.allow_migrate_model(alias, Attempt)]


def _usual() -> str:
    """The one that is shown where none is asked for."""
    aliases = _aliases()
    is_usual = DEFAULT_DB_ALIAS in aliases or not aliases
    return DEFAULT_DB_ALIAS if is_usual else aliases[0]
