"""What pages show of a routine and of its attempts."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from once.databases import database
from once.decisions import Decision, refusal
from once.models import DECISIONS, Attempt, State
from once.registry import Registry
from once.status import RoutineState, Status
from once.text import last_line

__all__ = ["Row", "Try", "lasted", "marked", "moment", "named", "rows", "split"]

#: Every state by its name on a page; first what asks for a person.
STATES = {
    RoutineState.FAILED: _("failed"),
    RoutineState.HELD: _("held"),
    RoutineState.BLOCKED: _("blocked"),
    RoutineState.RUNNING: _("running"),
    RoutineState.PENDING: _("pending"),
    RoutineState.COMPLETED: _("completed"),
    RoutineState.SUPERSEDED: _("superseded"),
    RoutineState.UNKNOWN: _("unknown"),
}


@dataclass(frozen=True)
class Row:
    """One routine."""

    status: Status
    #: Whether starting servers run it.
    startup: bool

    @property
    def id(self) -> str:
        """What stands for it in a page's address: its database and its name."""
        return f"{self.status.database or ''}:{self.status.name}"

    @property
    def state(self) -> str:
        """Its state, in the reader's language."""
        return str(STATES[self.status.state])

    @property
    def version(self) -> int | None:
        """Of this code, or else what is recorded."""
        return self.status.version or self.status.recorded_version

    @property
    def began(self) -> str:
        """When the last attempt began, or else when it was completed."""
        return moment(self.status.started_at or self.status.completed_at)

    @property
    def lasted(self) -> str:
        """How long the last attempt took."""
        return lasted(self.status.duration_seconds)

    @property
    def progress(self) -> str:
        """How far a batched routine is, and how fast it goes."""
        one = self.status
        if one.processed is None:
            return ""
        parts = [f"{one.processed:,}"]
        if one.total is not None:
            share = f" ({one.processed / one.total:.0%})" if one.total else ""
            of = gettext("%(processed)s of %(total)s")
            parts = [of % {"processed": f"{one.processed:,}", "total": f"{one.total:,}"} + share]
        if one.rate and one.state is RoutineState.RUNNING:
            parts.append(gettext("%(rate)s/s") % {"rate": f"{one.rate:,.0f}"})
        if one.seconds_left is not None:
            parts.append(gettext("%(time)s left") % {"time": lasted(round(one.seconds_left))})
        return ", ".join(parts)

    @property
    def has_bar(self) -> bool:
        """Whether it is under way, and known how far."""
        is_done = self.status.state is RoutineState.COMPLETED
        return bool(self.status.total) and not is_done

    @property
    def error_line(self) -> str:
        """The error of the last attempt, without its traceback."""
        return last_line(self.status.error or "")

    @cached_property
    def next_step(self) -> SafeString:
        """What a person should know, and do next."""
        return marked(self.status.message or self._next_step())

    def refusal(self, decision: Decision) -> str:
        """Why a decision about it cannot be carried out, or nothing."""
        refused = refusal(decision, self.status)
        return refused.message if refused else ""

    @property
    def decisions(self) -> list[Decision]:
        """What can be decided about it now."""
        return [decision for decision in Decision if not self.refusal(decision)]

    def consequence(self, decision: Decision) -> SafeString:
        """What comes of a decision, for who is asked to confirm it."""
        return marked(self._consequence(decision))

    def _consequence(self, decision: Decision) -> str:
        one = self.status
        if decision is Decision.FAKE:
            return gettext("Is recorded as done. Its function is not called.")
        if one.state is RoutineState.COMPLETED:
            what = gettext("It ran. It runs again, from the start, under a new key.")
        else:
            what = gettext("It goes on where it stands, under the same key.")
        if one.kind == "external" or one.state is RoutineState.HELD:
            what += " " + gettext("What it did outside of the database may be done twice.")
        if one.kind == "call":
            return what + " " + gettext("Call it again by `manage.py once call`.")
        return what

    def _next_step(self) -> str:
        one = self.status
        if one.state is RoutineState.SUPERSEDED:
            return gettext("A newer version is recorded, or was begun: this code never runs it.")
        if one.state is RoutineState.UNKNOWN:
            return gettext("Not in this code. Its record is left alone.")
        if one.kind == "process":
            return gettext("In memory, once in each process: this is how it stands in this one.")
        if one.state not in (RoutineState.FAILED, RoutineState.PENDING):
            return ""
        if one.kind == "call":
            return gettext("Call it again by `manage.py once call`.")
        if not self.startup:
            return gettext("Only `manage.py once run` runs it.")
        if one.retry_at is not None:
            return gettext(
                "Starting servers try again from %(time)s on; `manage.py once run` tries at once."
            ) % {"time": moment(one.retry_at)}
        return gettext("The next `manage.py once run` or server start runs it.")


@dataclass(frozen=True)
class Try:
    """One attempt, or a person's decision, in the history of a routine."""

    attempt: Attempt
    using: str

    @property
    def id(self) -> str:
        """What stands for it in a page's address."""
        return named(self.using, self.attempt.pk)

    @property
    def is_decision(self) -> bool:
        """Whether a person decided, and no body was called."""
        return self.attempt.trigger in DECISIONS

    @property
    def began(self) -> str:
        """When."""
        return moment(self._aware(self.attempt.started_at))

    @property
    def ended(self) -> str:
        """Until when."""
        return moment(self._aware(self.attempt.finished_at))

    @property
    def lasted(self) -> str:
        """How long it took."""
        if self.is_decision or self.attempt.finished_at is None:
            return ""
        return lasted((self.attempt.finished_at - self.attempt.started_at).total_seconds())

    @property
    def tone(self) -> str:
        """The state of a routine that looks like that of this attempt."""
        states = {State.SUCCEEDED: "completed", State.INTERRUPTED: "pending", State.LOST: "failed"}
        return states.get(State(self.attempt.state), self.attempt.state)

    @property
    def error_line(self) -> str:
        """The error without its traceback."""
        return last_line(self.attempt.error)

    def _aware(self, when: datetime | None) -> datetime | None:
        return database(self.using).aware(when) if when else None


def rows(registry: Registry, found: Iterable[Status]) -> list[Row]:
    """What pages show of routines: first those that ask for a person, then in their order."""
    by_hand = {routine.name for routine in registry if not routine.startup}
    shown = [Row(status=one, startup=one.name not in by_hand) for one in found]
    urgency = {state: number for number, state in enumerate(STATES)}
    return sorted(shown, key=lambda row: urgency[row.status.state])


def moment(when: datetime | None) -> str:
    """A time, in the reader's zone."""
    if when is None:
        return ""
    local = timezone.localtime(when)
    return f"{local:%Y-%m-%d %H:%M:%S}"


def lasted(seconds: float | None) -> str:
    """A length of time, as short as it may be said."""
    if seconds is None:
        return ""
    if seconds < 60:
        digits = 3 if seconds < 1 else 1 if isinstance(seconds, float) else 0
        return gettext("%(seconds)s s") % {"seconds": formats.number_format(seconds, digits)}
    minutes = round(seconds / 60)
    if minutes < 120:
        return ngettext("%(count)d min", "%(count)d min", minutes) % {"count": minutes}
    hours = round(minutes / 60)
    return ngettext("%(count)d hour", "%(count)d hours", hours) % {"count": hours}


def marked(text: str) -> SafeString:
    """Text whose commands, between backticks, are shown as such."""
    parts = text.split("`")
    return format_html_join(
        "",
        "{}",
        (
            (format_html("<code>{}</code>", part) if number % 2 else part,)
            for number, part in enumerate(parts)
        ),
    )


def named(using: str, name: object) -> str:
    """What stands for a row of a database in a page's address."""
    return f"{using}:{name}"


def split(name: str) -> tuple[str, str]:
    """The database and the row that such a name stands for."""
    using, _colon, rest = name.partition(":")
    return using, rest
