"""The page of all routines, where a person decides about some, and the page of each."""

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django import VERSION
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.core.paginator import Paginator
from django.db import Error, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext
from django.views import View

from once.admin.actions import ACTIONS, PaceForm, ReasonForm
from once.admin.attempts import ReadOnlyAdmin
from once.admin.rows import Row, marked, refusals, seconds
from once.exceptions import OnceError
from once.models import Attempt, Routine, Wish
from once.record import wishes
from once.results import Outcome, Result
from once.routines import registry
from once.status import decisions, past
from once.status.decisions import Decision
from once.status.state import RoutineState, Status
from once.status.survey import statuses
from once.status.text import facts
from once.text import one_line
from once.words import translated

#: Routines on a page of the list.
PER_PAGE = 100


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
        labels = self.registry.labels
        listed = statuses(self.registry, databases=[*databases], unread=self.unread)
        rows = [
            Row(
                status=each,
                runs_at_startup=each.name not in by_hand,
                app=labels.get(each.name) or re.split("[.:]", each.name)[0],
            )
            for each in listed
        ]
        states = [*RoutineState]
        return sorted(rows, key=lambda row: states.index(row.status.state))

    def problems(self) -> list[str]:
        """Return why something could not be read, and which routines are missing for it."""
        problems = []
        for name, error in self.unread.items():
            routines = self.registry.recorded
            names = [each.name for each in routines if name in (each.using, each.name)]
            problem = gettext("{error}. Left out: {names}.")
            if name in connections.settings:
                problem = gettext("Database “{name}” cannot be read: {error}. Left out: {names}.")
            why = one_line(error).rstrip(".")
            problems.append(problem.format(name=name, error=why, names=", ".join(names) or "-"))
        return problems

    def permitted(self) -> list[Decision]:
        """Return what the person may decide."""
        user = self.request.user
        return [each for each, act in ACTIONS.items() if user.has_perm(f"once.{act.permission}")]

    def message(self, text: str, level: int = messages.WARNING) -> None:
        self.admin.message_user(self.request, text, level)

    def to_list(self) -> HttpResponse:
        url = reverse("admin:once_routine_changelist", current_app=self.site.name)
        return HttpResponseRedirect(url)

    def page(self, template: str, *, title: str, **context: Any) -> HttpResponse:
        """Return a page, or its part that changes, for the script that reads that again.

        The part shows no messages: they are for the next page that the person sees.
        """
        self.request.current_app = self.site.name
        common = {"opts": self.admin.opts, "checkbox_name": ACTION_CHECKBOX_NAME}
        if self.request.headers.get("X-Requested-With") == "XMLHttpRequest":
            template = f"parts/{template}"
        else:
            common |= {
                **self.site.each_context(self.request),
                "title": title,
                "has_crumb_list": VERSION >= (6, 1),
            }
        return TemplateResponse(self.request, f"admin/once/{template}", common | context)


class ListPage(Page):
    """All routines, or those that are looked for; and by POST a decision about some."""

    def get(self, request: HttpRequest) -> HttpResponse:
        rows = self.rows(connections)
        given = {name: request.GET.get(name, "").strip() for name in ("q", "app", "state")}
        found = [
            row
            for row in rows
            if given["q"].lower() in row.status.name.lower() and given["app"] in ("", row.app)
        ]
        counts = Counter(row.status.state for row in found)
        listed = [row for row in found if given["state"] in ("", row.status.state)]
        shown = Paginator(listed, PER_PAGE).get_page(request.GET.get("p"))
        states = [(each, counts[each]) for each in RoutineState if counts[each]]
        return self.page(
            "routines.html",
            title=gettext("Routines"),
            rows=shown.object_list,
            seconds=seconds(rows),
            problems=self.problems(),
            given=given,
            has_any=bool(rows),
            apps=sorted({row.app for row in rows}),
            states=[
                ("", len(found), self._address(state="")),
                *((state.value, count, self._address(state=state)) for state, count in states),
            ],
            pages=[
                (number, self._address(p=number) if isinstance(number, int) else "")
                for number in shown.paginator.get_elided_page_range(shown.number)
            ],
            number=shown.number,
            actions=[
                (each.value, gettext(ACTIONS[each].label))
                for each in self.permitted()
                if each != Wish.Kind.RUN or any(row.status.has_worker for row in rows)
            ],
            has_databases=len({row.status.database for row in rows} - {None}) > 1,
        )

    def _address(self, **changes: Any) -> str:
        """Return the address of this list with other choices, on its first page."""
        query = self.request.GET.copy()
        query.pop("p", None)
        for name, value in changes.items():
            query[name] = str(value)
        return f"?{query.urlencode()}"

    def post(self, request: HttpRequest) -> HttpResponse:
        """Ask for confirmation and a reason, or carry out what was confirmed."""
        action = request.POST.get("action", "")
        decision = next((each for each in ACTIONS if each == action), None)
        if decision is None:
            self.message(gettext("No action selected."))
            return HttpResponseRedirect(request.get_full_path())
        if decision not in self.permitted():
            raise PermissionDenied
        ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
        chosen = [row for row in self.rows(connections) if row.id in ids]
        if not chosen:
            self.message(gettext("No routine selected."))
            return HttpResponseRedirect(request.get_full_path())
        refused = refusals(decision, chosen)
        is_confirmed = "post" in request.POST
        kind = PaceForm if decision is Wish.Kind.SET else ReasonForm
        form = kind(request.POST if is_confirmed else None)
        if is_confirmed and form.is_valid():
            # Because a person confirms what the page said, what it said comes with the decision.
            seen = dict(zip(ids, request.POST.getlist("seen"), strict=False))
            for row in chosen:
                refusal, state = refused.get(row.id), seen.get(row.id)
                text, level = self._carry_out(decision, row, refusal, state, form.cleaned_data)
                self.message(text, level)
            return self.to_list()
        return self.page(
            "confirm.html",
            title=gettext(ACTIONS[decision].label),
            decision=decision.value,
            introduction=marked(gettext(ACTIONS[decision].introduction)),
            due=[(row, row.consequence(decision)) for row in chosen if row.id not in refused],
            refused=[*map(marked, refused.values())],
            form=form,
        )

    def _carry_out(
        self,
        decision: Decision,
        row: Row,
        refused: str | None,
        seen: str | None,
        given: dict[str, Any],
    ) -> tuple[str, int]:
        """Do it, and return what became of it with the level of that message."""
        status = row.status
        left = gettext("Left as it is: {}")
        if refused:
            return left.format(refused), messages.WARNING
        if status.state != seen:
            now = gettext("{} is {} by now. Look again, and decide then.")
            return left.format(now.format(status.name, gettext(status.state))), messages.WARNING
        try:
            done, is_done = self._decide(decision, status, given)
        except (OnceError, ImproperlyConfigured, Error, OSError) as error:
            return left.format(f"{status.name}: {one_line(error)}"), messages.ERROR
        if not is_done:
            return left.format(done), messages.WARNING
        entry = Routine(pk=row.id, routine=status.name)
        try:
            self.admin.log_change(
                self.request, entry, f"{ACTIONS[decision].label}. {given['reason']}"
            )
        except Error as error:  # done all the same, and in the routine's own history
            missing = gettext("Done, but missing in the admin's log: {}")
            self.message(missing.format(one_line(error)))
        return done, messages.SUCCESS

    def _decide(
        self, decision: Decision, status: Status, given: dict[str, Any]
    ) -> tuple[str, bool]:
        """Return what became of a decision, and whether it was carried out."""
        by = {"user": self.request.user.get_username(), "reason": given["reason"]}
        if isinstance(decision, Wish.Kind):
            values = {name: given[name] for name in wishes.VALUES if given.get(name) is not None}
            if given.get("as_declared"):
                values = dict.fromkeys(wishes.VALUES)
            told, is_made = decisions.record_wish(decision, status, **by, values=values)
            # Because the admin begins each message with a capital letter, the name is quoted.
            return told.replace(status.name, gettext("“{}”").format(status.name), 1), is_made
        with translated(on=False):  # what is logged and recorded
            result = decisions.carry_out(decision, status, self.registry, **by)
        if result.outcome is not Outcome.RECORDED:
            return _why_left(result), False
        return gettext(ACTIONS[decision].done).format(status.name), True


class RoutinePage(Page):
    """The page of a routine, with its history."""

    def get(self, request: HttpRequest, object_id: str) -> HttpResponse:
        using, _, name = unquote(object_id).partition(":")
        rows = self.rows([using] if using in connections.settings else [])
        row = next((row for row in rows if row.id == f"{using}:{name}"), None)
        if row is None:
            for problem in self.problems() or [gettext("There is no routine “{}”.").format(name)]:
                self.message(problem)
            return self.to_list()
        routine = next((each for each in self.registry.recorded if each.name == name), None)
        history, failed = past.History(), list[past.PastItem]()
        with suppress(Error):  # which the page says
            history = past.history_of(using, name) if using else history
            failed = past.items_of(routine) if routine and row.status.failed_items else []
        may_decide = [each for each in self.permitted() if not row.refusal(each)]
        return self.page(
            "routine.html",
            title=name,
            row=row,
            seconds=seconds([row]),
            facts=facts(row.status, self.registry),
            history=history.shown,
            has_more=history.has_more,
            last=past.LAST,
            failed=failed[-past.LAST :],
            actions=[(each.value, gettext(ACTIONS[each].label)) for each in may_decide],
            # A site of one's own may have routines alone.
            sees_attempts=self.site.is_registered(Attempt)
            and request.user.has_perm("once.view_attempt"),
        )


def _why_left(result: Result) -> str:
    """Return why a decision came to nothing."""
    name = result.routine.name
    if not result.message:
        return gettext("{} was done by another process meanwhile.").format(name)
    return result.message if name in result.message else f"{name}: {result.message}"
