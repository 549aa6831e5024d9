"""The page of all routines, that of each, and the decisions that a person takes there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from django import VERSION, forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import AdminTextareaWidget
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import Error, connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from once import registry
from once.admin.attempts import ReadOnlyAdmin
from once.exceptions import OnceError
from once.models import Attempt, Routine
from once.registry import Registry

if TYPE_CHECKING:
    from once.admin.shown import Row, Try
    from once.decisions import Decision
    from once.results import Result
# What a page needs, most of the package, is loaded with the first one: every process has the admin.

__all__ = ["RoutineAdmin"]

View = TypeVar("View", bound=Callable[..., HttpResponse])

#: Attempts that the page of a routine shows; all of them are in the list of attempts.
_LAST = 50

#: By decision, the rest as well.
_ACTIONS = {
    "reset": _("Reset: have it run again"),
    "fake": _("Record as done without running"),
}
_INTRODUCTIONS = {
    "reset": _(
        "These run again, the next time that somebody starts them: by `manage.py once run` or, "
        "where servers run them, as one starts. What comes after them does not run again."
    ),
    "fake": _("These are recorded as done, although they did not run here."),
}
_PERMISSIONS = {"reset": "once.reset_routine", "fake": "once.fake_routine"}


def _outside_transactions(view: View) -> View:
    """A view that ATOMIC_REQUESTS does not touch: a run has transactions of its own.

    And a database that is out of reach is no error of the whole page.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


class ReasonForm(forms.Form):
    """Why a person decides so."""

    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("Goes into the history, with your name."),
        max_length=1000,
        widget=AdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
    )


@dataclass(frozen=True)
class Look:
    """How everything stands at this moment."""

    registry: Registry
    rows: "list[Row]"
    #: Databases that could not be read, and routines whose scope could not, each with why.
    unread: dict[str, Exception] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What to tell of those, and which routines are missing for it."""
        from once.text import one_line

        told = []
        for name, error in self.unread.items():
            names = [one.name for one in self.registry.recorded if name in (one.using, one.name)]
            what = gettext("Database “%(name)s” cannot be read: %(error)s Left out: %(routines)s.")
            if name not in connections.settings:
                what = gettext("%(error)s Left out: %(routines)s.")
            told.append(
                what
                % {
                    "name": name,
                    "error": f"{one_line(error).rstrip('.')}.",
                    "routines": ", ".join(names) or "-",
                }
            )
        return told


def look(databases: Iterable[str]) -> Look:
    """See how routines stand, in these databases."""
    from once.admin.shown import rows
    from once.status import statuses

    found = registry.load()
    unread: dict[str, Exception] = {}
    shown = statuses(found, databases=[*databases], unread=unread)
    return Look(registry=found, rows=rows(found, shown), unread=unread)


class RoutineAdmin(ReadOnlyAdmin):
    """All routines, registered and recorded, each with its history."""

    def get_urls(self) -> list[URLPattern]:
        wrapped = self.admin_site.admin_view
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("", wrapped(self.changelist_view), name=f"{name}_changelist"),
            path("<path:object_id>/change/", wrapped(self.change_view), name=f"{name}_change"),
        ]

    @_outside_transactions
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """All of them, or those in one state; and, by POST, a decision about some."""
        from once.admin.shown import STATES

        self._refuse_strangers(request)
        seen = look(connections)
        if request.method == "POST":
            return self._decide(request, seen)
        state = request.GET.get("state", "")
        counts = {
            one: sum(row.status.state is one for row in seen.rows)
            for one in STATES
            if any(row.status.state is one for row in seen.rows)
        }
        return self._page(
            request,
            "admin/once/routines.html",
            title=gettext("Routines"),
            rows=[row for row in seen.rows if not state or row.status.state == state],
            problems=seen.problems,
            state=state,
            states=[(one.value, STATES[one], count) for one, count in counts.items()],
            total=len(seen.rows),
            actions=[(one.value, _ACTIONS[one]) for one in self._permitted(request)],
            has_databases=len({row.status.database for row in seen.rows} - {None}) > 1,
            **(extra_context or {}),
        )

    @_outside_transactions
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """One of them, with its history."""
        from once.admin.shown import split

        self._refuse_strangers(request)
        using, name = split(unquote(object_id))
        seen = look([using] if using in connections.settings else [])
        row = next((one for one in seen.rows if one.id == f"{using}:{name}"), None)
        if row is None:
            told = seen.problems or [gettext("There is no routine “%(name)s”.") % {"name": name}]
            for message in told:
                self.message_user(request, message, messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        tries, has_more = _history(using, name) if using else ([], False)
        may_decide = [one for one in row.decisions if one in self._permitted(request)]
        return self._page(
            request,
            "admin/once/routine.html",
            title=name,
            row=row,
            tries=tries,
            has_more=has_more,
            last=_LAST,
            actions=[(one.value, _ACTIONS[one]) for one in may_decide],
            # A site of one's own may have routines alone.
            sees_attempts=self.admin_site.is_registered(Attempt)
            and request.user.has_perm("once.view_attempt"),
            **(extra_context or {}),
        )

    def _decide(self, request: HttpRequest, seen: Look) -> HttpResponse:
        """Ask for confirmation and a reason, or carry out what was confirmed."""
        from once.admin.shown import marked
        from once.decisions import Decision

        try:
            decision = Decision(request.POST.get("action", ""))
        except ValueError:
            self.message_user(request, gettext("No action selected."), messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        if decision not in self._permitted(request):
            raise PermissionDenied
        ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
        chosen = [row for row in seen.rows if row.id in ids]
        if not chosen:
            self.message_user(request, gettext("No routine selected."), messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        is_confirmed = "post" in request.POST
        form = ReasonForm(request.POST if is_confirmed else None)
        if is_confirmed and form.is_valid():
            # Who confirms decides about what the page said.
            said = dict(zip(ids, request.POST.getlist("seen"), strict=False))
            for row in chosen:
                reason = form.cleaned_data["reason"]
                self._carry_out(request, decision, row, seen.registry, said.get(row.id), reason)
            return HttpResponseRedirect(self._url("changelist"))
        return self._page(
            request,
            "admin/once/confirm.html",
            title=gettext("Are you sure?"),
            decision=decision.value,
            action=_ACTIONS[decision],
            introduction=marked(str(_INTRODUCTIONS[decision])),
            due=[(row, row.consequence(decision)) for row in chosen if not row.refusal(decision)],
            refused=[marked(row.refusal(decision)) for row in chosen if row.refusal(decision)],
            form=form,
        )

    def _carry_out(
        self,
        request: HttpRequest,
        decision: "Decision",
        row: "Row",
        found: Registry,
        said: str | None,
        reason: str,
    ) -> None:
        """Do it, and tell what became of it."""
        from once.decisions import carry_out
        from once.results import Outcome
        from once.text import one_line

        user = request.user.get_username()[: Attempt._meta.get_field("user").max_length]
        problem = row.refusal(decision)
        if not problem and row.status.state != said:
            problem = gettext("%(name)s is %(state)s by now. Look again, and decide then.") % {
                "name": row.status.name,
                "state": row.state,
            }
        if problem:
            self._tell_left(request, problem)
            return
        try:
            result = carry_out(decision, row.status, found, user=user, reason=reason)
        except (OnceError, ImproperlyConfigured, Error, OSError) as error:
            self._tell_left(request, f"{row.status.name}: {one_line(error)}", messages.ERROR)
            return
        if result.outcome is not Outcome.RAN:
            self._tell_left(request, _why_left(result))
            return
        try:
            self._log(request, row, f"{_ACTIONS[decision]}. {reason}")
        except Error as error:  # done all the same, and in the routine's own history
            problem = gettext("Done, but missing in the admin's log: %(error)s")
            message = problem % {"error": one_line(error)}
            self.message_user(request, message, messages.WARNING)
        done = {
            "reset": gettext("“%(name)s” is pending again."),
            "fake": gettext("“%(name)s” is recorded as done."),
        }
        self.message_user(request, done[decision] % {"name": row.status.name}, messages.SUCCESS)

    def _tell_left(self, request: HttpRequest, problem: str, level: int = messages.WARNING) -> None:
        message = gettext("Left as it is: %(problem)s") % {"problem": problem}
        self.message_user(request, message, level)

    def _log(self, request: HttpRequest, row: "Row", message: str) -> None:
        kind = ContentType.objects.get_for_model(Routine, for_concrete_model=False)
        LogEntry.objects.create(
            user_id=str(request.user.pk),
            content_type_id=kind.pk,
            object_id=row.id,
            object_repr=row.status.name[:200],
            action_flag=CHANGE,
            change_message=message,
        )

    def _refuse_strangers(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _permitted(self, request: HttpRequest) -> "list[Decision]":
        from once.decisions import Decision

        return [one for one in Decision if request.user.has_perm(_PERMISSIONS[one])]

    def _url(self, page: str, *args: str) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def _page(
        self, request: HttpRequest, template: str, *, title: str, **context: Any
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            template,
            {
                **self.admin_site.each_context(request),
                "title": title,
                "opts": self.opts,
                "media": self.media,
                "has_crumb_list": VERSION >= (6, 1),
                "checkbox_name": ACTION_CHECKBOX_NAME,
                **context,
            },
        )


def _history(using: str, name: str) -> "tuple[list[Try], bool]":
    """The last attempts at a routine, and whether there are more."""
    from once.admin.shown import Try
    from once.databases import database

    here = database(using)
    attempts = Attempt.objects.using(using).filter(routine=name).order_by("-number")
    try:
        with here.reading(), here.statements():
            found = list(attempts[: _LAST + 1])
    except Error:  # tables that are missing: the page says so
        return [], False
    return [Try(attempt=one, using=using) for one in found[:_LAST]], len(found) > _LAST


def _why_left(result: "Result") -> str:
    """Why a decision came to nothing."""
    name = result.routine.name
    if not result.message:
        return gettext("%(name)s was done by another process meanwhile.") % {"name": name}
    return result.message if name in result.message else f"{name}: {result.message}"
