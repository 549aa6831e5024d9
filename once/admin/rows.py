"""Rows of the admin's list of routines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_noop

from once.models import Trigger, Wish
from once.status import decisions, text
from once.status.decisions import Decision
from once.status.state import RoutineState, Status

_UNREADY = gettext_noop("A server that starts meanwhile is not ready until it is done.")
#: Seconds after which a page is read again, while something runs, and while something waits.
_RUNS, _WAITS = 3, 10


@dataclass(frozen=True)
class Row:
    """A routine on the list."""

    status: Status
    #: True if starting servers run it.
    runs_at_startup: bool
    #: The label of its app, as far as that is known.
    app: str = ""

    @property
    def id(self) -> str:
        """Its database and its name, for the address of a page."""
        return f"{self.status.database or ''}:{self.status.name}"

    @property
    def version(self) -> int | None:
        return self.status.version or self.status.recorded_version

    @property
    def began(self) -> str:
        """Time at which the last attempt began, or else the routine was completed."""
        return text.moment(self.status.started_at or self.status.completed_at)

    @property
    def lasted(self) -> str:
        return text.duration(self.status.duration_seconds)

    @property
    def per(self) -> str:
        return text.per(self.status)

    @property
    def progress(self) -> str:
        if not self.status.progress:
            return ""
        parts = [text.progress(*self.status.progress)]
        if self.status.throttled:
            parts.append(gettext("waits: {}").format(self.status.throttled))
        return ", ".join(parts)

    @property
    def without_body(self) -> str:
        """Words for a completion without a call of its body, or nothing."""
        is_completed = self.status.state is RoutineState.COMPLETED
        return text.without_body(self.status) if is_completed else ""

    @cached_property
    def next_step(self) -> SafeString:
        return marked(text.next_step(self.status, runs_at_startup=self.runs_at_startup))

    def refusal(self, decision: Decision) -> SafeString:
        """Return why a decision about it cannot be carried out, or nothing."""
        refused = decisions.refusal(decision, self.status)
        return marked(refused.message if refused else "")

    def consequence(self, decision: Decision) -> SafeString:
        """Return what comes of a decision, for the person that is asked to confirm it."""
        if isinstance(decision, Wish.Kind):
            return marked(self._wished(decision))
        if decision is Trigger.FAKE:
            parts = [gettext("Is recorded as done. Its function is not called.")]
            if self.runs_at_startup:
                parts.append(gettext("Starting servers wait for it no longer."))
            return marked(" ".join(parts))
        parts = [gettext("It goes on where it stands, under the same key.")]
        if self.status.state is RoutineState.COMPLETED:
            parts = [gettext("It ran. It runs again, from the start, under a new key.")]
            if self.without_body:
                uncalled = gettext("Its function was not called: {}. Now it will be.")
                parts = [uncalled.format(self.without_body)]
        if self.status.kind == "external" or self.status.state is RoutineState.HELD:
            parts.append(gettext("What it did outside of the database may be done twice."))
        parts.append(self._taken_up)
        if self.runs_at_startup and self.status.kind != "call":
            parts += [gettext(_UNREADY), gettext("A server that is ready stays ready.")]
        return marked(" ".join(parts))

    @property
    def _taken_up(self) -> str:
        """The process that runs it, once it is pending."""
        pending = replace(self.status, state=RoutineState.PENDING, message=None, retry_at=None)
        return text.next_step(pending, runs_at_startup=self.runs_at_startup)

    def _wished(self, kind: Wish.Kind) -> str:
        status = self.status
        if kind == Wish.Kind.SET:
            values = (status.pace or {}).items()
            pace = ", ".join(f"{name}={value:g}" for name, value in values if value is not None)
            if status.set_by:
                return gettext("It has {}, as {} set it.").format(pace, status.set_by)
            return gettext("It has {}, as the code has it.").format(pace)
        if kind == Wish.Kind.RESUME:
            return " ".join([gettext("It goes on where it stands."), self._taken_up])
        if kind == Wish.Kind.RUN:
            if status.state is RoutineState.COMPLETED:
                told = gettext("Only its failed items ({}) are tried, each alone.")
                return told.format(status.failed_items)
            return gettext("It goes on where it stands. If it fails again, its delay doubles.")
        stops = gettext("No process takes it up.")
        if status.state is RoutineState.RUNNING:
            stops = gettext("It stops on {} after its body.")
            if status.kind == "batched":
                stops = gettext("It stops on {} after the batch in hand.")
        unready = f" {gettext(_UNREADY)}" if self.runs_at_startup else ""
        return stops.format(status.place) + unready


def seconds(rows: Iterable[Row]) -> int:
    """Return the seconds after which a page of these is to be read again, or 0 for never."""
    statuses = [row.status for row in rows if row.status.kind != "process"]
    states = {status.state for status in statuses}
    if RoutineState.RUNNING in states:
        return _RUNS
    waits = states & {RoutineState.PENDING, RoutineState.BLOCKED}
    return _WAITS if waits or any(each.retry_at or each.wanted for each in statuses) else 0


def marked(sentence: str) -> SafeString:
    """Return a text whose commands, between backticks, are shown as such."""
    parts = enumerate(sentence.split("`"))
    marks = ([format_html("<code>{}</code>", part) if n % 2 else part] for n, part in parts)
    return format_html_join("", "{}", marks)


def refusals(decision: Decision, rows: Sequence[Row]) -> dict[str, str]:
    """Return why a decision is not carried out, by the id of each row that it is not for.

    Raises:
        django.db.Error: a database cannot be used.

    """
    found = {row.id: decisions.refusal(decision, row.status) for row in rows}
    refused = {key: refusal.message for key, refusal in found.items() if refusal}
    if decision is Trigger.RESET:
        left = [row for row in rows if row.id not in refused]
        passed = decisions.passed([row.status for row in left])
        told = {row.id: row.status.name for row in left if row.status.name in passed}
        refused |= {key: decisions.refuse_passed([name]) for key, name in told.items()}
    return refused
