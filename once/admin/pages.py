"""The page of all routines, and the page of each."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django import VERSION
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import Error, connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views import View

from once.admin.attempts import ReadOnlyAdmin
from once.admin.rows import STATES, AttemptRow, Row
from once.models import Attempt, Trigger
from once.routines import registry
from once.status.attempts import LAST, last
from once.status.survey import statuses
from once.text import one_line

__all__ = ["ACTIONS", "ListPage", "Page", "RoutinePage", "outside_transactions"]

V = TypeVar("V", bound=Callable[..., Any])

ACTIONS = {
    Trigger.RESET: "Reset: have it run again",
    Trigger.FAKE: "Record as done without running",
}


def outside_transactions(view: V) -> V:
    """Exempt a view from ATOMIC_REQUESTS, because a run has transactions of its own.

    So a database that is out of reach is no error of the whole page, either.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


class Page(View):
    """A page for people that may see routines."""

    admin: ReadOnlyAdmin = None  # type: ignore[assignment]  # set by as_view()

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        self.site = self.admin.admin_site
        self.registry = registry.load()
        #: Databases that could not be read, and routines whose scope could not, each with why.
        self.unread: dict[str, Exception] = {}

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not self.admin.has_view_permission(request):
            raise PermissionDenied
        return super().dispatch(request, *args, **kwargs)

    def rows(self, databases: Iterable[str]) -> list[Row]:
        """Return how routines stand in some databases: first those that ask for a person."""
        by_hand = {routine.name for routine in self.registry if not routine.startup}
        listed = statuses(self.registry, databases=[*databases], unread=self.unread)
        rows = [Row(status=each, runs_at_startup=each.name not in by_hand) for each in listed]
        return sorted(rows, key=lambda row: STATES.index(row.status.state))

    def problems(self) -> list[str]:
        """Return why something could not be read, and which routines are missing for it."""
        problems = []
        for name, error in self.unread.items():
            routines = self.registry.recorded
            names = [each.name for each in routines if name in (each.using, each.name)]
            problem = f"{one_line(error).rstrip('.')}. Left out: {', '.join(names) or '-'}."
            if name in connections.settings:
                problem = f"Database “{name}” cannot be read: {problem}"
            problems.append(problem)
        return problems

    def permitted(self) -> list[Trigger]:
        """Return what the person may decide."""
        user = self.request.user
        return [each for each in ACTIONS if user.has_perm(f"once.{each.value}_routine")]

    def message(self, text: str, level: int = messages.WARNING) -> None:
        self.admin.message_user(self.request, text, level)

    def to_list(self) -> HttpResponse:
        url = reverse("admin:once_routine_changelist", current_app=self.site.name)
        return HttpResponseRedirect(url)

    def page(self, template: str, *, title: str, **context: Any) -> HttpResponse:
        self.request.current_app = self.site.name
        common = {
            **self.site.each_context(self.request),
            "title": title,
            "opts": self.admin.opts,
            "media": self.admin.media,
            "has_crumb_list": VERSION >= (6, 1),
            "checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(self.request, f"admin/once/{template}", common | context)


class ListPage(Page):
    """All routines, or those in one state."""

    def get(self, request: HttpRequest) -> HttpResponse:
        rows = self.rows(connections)
        state = request.GET.get("state", "")
        counts = {each: sum(row.status.state is each for row in rows) for each in STATES}
        return self.page(
            "routines.html",
            title="Routines",
            rows=[row for row in rows if not state or row.status.state == state],
            problems=self.problems(),
            state=state,
            states=[(each.value, count) for each, count in counts.items() if count],
            total=len(rows),
            actions=[(each.value, ACTIONS[each]) for each in self.permitted()],
            has_databases=len({row.status.database for row in rows} - {None}) > 1,
        )


class RoutinePage(Page):
    """The page of a routine, with its history."""

    def get(self, request: HttpRequest, object_id: str) -> HttpResponse:
        using, _, name = unquote(object_id).partition(":")
        rows = self.rows([using] if using in connections.settings else [])
        row = next((row for row in rows if row.id == f"{using}:{name}"), None)
        if row is None:
            for problem in self.problems() or [f"There is no routine “{name}”."]:
                self.message(problem)
            return self.to_list()
        attempts = _history(using, name) if using else []
        may_decide = [each for each in self.permitted() if not row.refusal(each)]
        return self.page(
            "routine.html",
            title=name,
            row=row,
            attempts=attempts[:LAST],
            has_more=len(attempts) > LAST,
            last=LAST,
            actions=[(each.value, ACTIONS[each]) for each in may_decide],
            # A site of one's own may have routines alone.
            sees_attempts=self.site.is_registered(Attempt)
            and request.user.has_perm("once.view_attempt"),
        )


def _history(using: str, name: str) -> list[AttemptRow]:
    """Return the last attempts at a routine, and one more than the page shows if there is."""
    try:
        return [AttemptRow(each.attempt) for each in last(using, name)]
    except Error:  # which the page says
        return []
