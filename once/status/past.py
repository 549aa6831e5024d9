"""The past of a routine: attempts, decisions and wishes of people, and items that failed."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model

from once.databases import database
from once.models import BODILESS, DECISIONS, Anchor, Attempt, Completion, Trigger, Wish
from once.record import failed_items, history, wishes
from once.routines.base import Routine
from once.routines.names import RESERVED
from once.status import text
from once.words import gettext

#: Attempts, wishes and items that are shown at most.
LAST = 50


def aware(row: Model, when: datetime) -> datetime:
    """Return a time in a row with its zone, which some databases do not keep."""
    return database(row._state.db or DEFAULT_DB_ALIAS).aware(when)


@dataclass(frozen=True)
class PastAttempt:
    """An attempt, or a person's decision, in the history of a routine."""

    attempt: Attempt

    @property
    def version(self) -> int | None:
        """The version that was run; ``None`` of a rename, which moved those of all versions."""
        return None if self.attempt.trigger == Trigger.RENAME else self.attempt.version

    @property
    def is_bodiless(self) -> bool:
        """True if no body was called: a decision, or what was found done."""
        return self.attempt.trigger in BODILESS

    @property
    def by(self) -> str:
        """The person that decided, or the caller of the attempt."""
        attempt = self.attempt
        if attempt.trigger == Trigger.FOUND:
            return "done_if"
        return (attempt.trigger in DECISIONS and attempt.user) or attempt.get_trigger_display()

    @property
    def started_at(self) -> datetime:
        return aware(self.attempt, self.attempt.started_at)

    @property
    def finished_at(self) -> datetime | None:
        attempt = self.attempt
        return aware(attempt, attempt.finished_at) if attempt.finished_at else None

    @property
    def began(self) -> str:
        return text.moment(self.started_at)

    @property
    def ended(self) -> str:
        return text.moment(self.finished_at)

    @property
    def lasted(self) -> str:
        if self.is_bodiless or self.attempt.finished_at is None:
            return ""
        seconds = (self.attempt.finished_at - self.attempt.started_at).total_seconds()
        return text.duration(max(0.0, seconds))

    @property
    def trace(self) -> str:
        return self.attempt.error.partition("\n")[2].strip()


@dataclass(frozen=True)
class PastWish:
    """A wish of a person for a routine, in its history."""

    wish: Wish

    @property
    def what(self) -> str:
        """The wish in a word, with the values that hold since."""
        values = [f"{name}={value:g}" for name, value in wishes.values(self.wish).items()]
        kind = self.wish.get_kind_display()
        if self.wish.kind != Wish.Kind.SET:
            return kind
        return " ".join([kind, *(values or [gettext("as declared")])])

    @property
    def made_at(self) -> datetime:
        return aware(self.wish, self.wish.made_at)

    @property
    def began(self) -> str:
        return text.moment(self.made_at)


@dataclass(frozen=True)
class PastItem:
    """An item that failed, as JSON shows it."""

    item: str
    #: Number of the attempt in which it failed last.
    attempt: int
    failed_at: datetime
    error: str

    @property
    def when(self) -> str:
        return text.moment(self.failed_at)

    @property
    def error_line(self) -> str:
        """The error without its traceback."""
        return self.error.partition("\n")[0]


@dataclass(frozen=True)
class History:
    """The last attempts at a routine, and wishes for it, the latest first."""

    #: One more than are shown, if any.
    attempts: list[PastAttempt] = field(default_factory=list)
    wishes: list[PastWish] = field(default_factory=list)

    @property
    def has_more(self) -> bool:
        return len(self.attempts) > LAST

    @property
    def shown(self) -> list[PastAttempt | PastWish]:
        """Attempts and wishes together."""

        def moment(each: PastAttempt | PastWish) -> datetime:
            return each.made_at if isinstance(each, PastWish) else each.started_at

        return sorted([*self.wishes, *self.attempts[:LAST]], key=moment, reverse=True)


def names(using: str) -> list[str]:
    """Return the names of all routines that a database has records of, in order.

    Raises:
        django.db.Error: the database cannot be read.

    """
    with database(using).reading(), database(using).statements():
        if not history.is_installed(using):
            return []
        rows = (model.objects.using(using) for model in (Attempt, Completion, Anchor, Wish))
        found = set().union(*(each.values_list("routine", flat=True).distinct() for each in rows))
        return sorted(name for name in found if not name.startswith(RESERVED))


def history_of(using: str, name: str) -> History:
    """Return what a database has of the past of a routine.

    Raises:
        django.db.Error: the database cannot be read, or has no tables of this package.

    """
    with database(using).reading():
        made = [PastWish(each) for each in wishes.history(using, name)[:LAST]]
        with database(using).statements():
            found = Attempt.objects.using(using).filter(routine=name).order_by("-number")
            return History([PastAttempt(each) for each in found[: LAST + 1]], made)


def items_of(routine: Routine, most: int | None = LAST + 1) -> list[PastItem]:
    """Return the items that failed last: one more than are shown, if any.

    Raises:
        django.db.Error: the database cannot be read.

    """
    here = database(routine.using)
    with here.reading():
        if not history.is_installed(routine.using):
            return []
        return [
            PastItem(row.item, row.number, here.aware(row.failed_at), row.error)
            for row in failed_items.last(routine, most)
        ]


def items_to_json(routine: Routine) -> dict[str, Any]:
    """Return a routine as ``once items --json`` prints it; its keys are a contract."""
    return {
        "name": routine.name,
        "database": routine.using,
        "version": routine.version,
        "failures": [asdict(each) for each in items_of(routine, None)],
    }


def to_json(using: str, name: str, past: History) -> dict[str, Any]:
    """Return a routine as ``once history --json`` prints it; its keys are a contract."""
    return {
        "name": name,
        "database": using,
        "attempts": [_to_json(each) for each in past.attempts[:LAST]],
        "wishes": [_wish_to_json(each) for each in past.wishes],
    }


def _wish_to_json(past: PastWish) -> dict[str, Any]:
    wish = past.wish
    return {
        "number": wish.number,
        "kind": wish.kind,
        "is_paused": wish.is_paused,
        "run_after": wish.run_after,
        "version": wish.version or None,
        **{name: getattr(wish, name) for name in wishes.VALUES},
        "user": wish.user or None,
        "reason": wish.reason or None,
        "made_at": past.made_at,
    }


def _to_json(past: PastAttempt) -> dict[str, Any]:
    attempt = past.attempt
    return {
        "number": attempt.number,
        "version": past.version,
        "state": attempt.state,
        "trigger": attempt.trigger,
        "user": attempt.user or None,
        "reason": attempt.reason or None,
        "started_at": past.started_at,
        "finished_at": past.finished_at,
        "host": attempt.host or None,
        "pid": attempt.pid,
        "release": attempt.release or None,
        "key": attempt.key,
        "processed": attempt.processed if attempt.cursor else None,
        "total": attempt.total,
        "error": attempt.error or None,
    }
