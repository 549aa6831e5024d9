"""Judge what earlier attempts mean for the next attempt. Asks no database."""

import enum
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter

from once import conf
from once.models import State
from once.routines.base import Routine

#: Doublings of the liveness timeout, at most, for attempts that were lost in a row.
DOUBLINGS = 3

#: Seconds that the delay between attempts at start-up doubles up to.
_RETRY_DELAY_CAP = 3600.0


class Standing(enum.Enum):
    """The record's judgement of a routine of this code, in one word."""

    OPEN = "open"
    DONE = "done"
    #: A higher version is recorded, or begun: this one never runs again.
    SUPERSEDED = "superseded"
    #: The value of its state is an earlier one: another was let to act since.
    EARLIER = "earlier"
    #: A person paused it, until a person resumes it.
    PAUSED = "paused"
    #: It may not be tried a second time, and was tried: a person decides.
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The record of one routine of this code."""

    standing: Standing
    #: Superseded by a version, or a value, that began and is not recorded: none to build on.
    is_overtaken: bool = False
    #: Number of the last attempt, at whatever version and scope key.
    number: int = 0
    #: Number of the last attempt at this very completion, and how many called the body.
    own_number: int = 0
    tries: int = 0
    #: True if an attempt at this very completion succeeded, though it may have been reset since.
    was_done: bool = False
    #: Attempts in a row, of any version, that were lost or never reported an end.
    lost_in_a_row: int = 0
    #: True if the last attempt has no end: it runs, or was lost.
    is_running: bool = False
    #: True if any attempt has no end.
    has_running: bool = False
    #: True if the last attempt runs with ``retry=False``: if its process is dead, it is held.
    holds_if_lost: bool = False
    #: True if an attempt at this completion went through batches.
    is_batched: bool = False
    #: True if it is held because its last attempt was deleted, which had to stay.
    is_gone: bool = False
    #: Seconds until starting servers may try again; 0 where they may.
    retry_in: float = 0.0
    #: The time from which they may, by the database's clock, if it lies ahead.
    retry_at: datetime | None = None
    #: True if a person wants it run now, and no attempt began since.
    is_wanted: bool = False
    #: Old names of it without a tombstone: what they record is to be carried over first.
    uncarried: tuple[str, ...] = ()

    @property
    def is_untried(self) -> bool:
        """True if no version was ever tried, or done."""
        return self.standing is Standing.OPEN and not self.number

    @property
    def is_done(self) -> bool:
        """True if this version is not to run (again) by itself: it is done, or superseded."""
        return self.standing in (Standing.DONE, Standing.SUPERSEDED, Standing.EARLIER)

    @property
    def is_put_off(self) -> bool:
        """True if only a person has it tried now: it failed lately, or items of it did."""
        return self.retry_in > 0 or (self.standing is Standing.DONE and not self.is_wanted)


#: States in which an attempt that may not be repeated has its routine held.
HOLDING = (State.FAILED, State.LOST, State.INTERRUPTED)
#: States in which starting servers wait before they try again.
BAD = (State.FAILED, State.LOST, State.RUNNING)
#: The same values each time, to be cheap for thousands.
_OPEN, _DONE, _SUPERSEDED = (
    Record(standing=standing) for standing in (Standing.OPEN, Standing.DONE, Standing.SUPERSEDED)
)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts at one routine that have all this in common."""

    version: int
    #: The scope key, if it is that of a routine of this code.
    scope_key: str | None
    state: str
    retry: bool
    #: The last one's.
    number: int
    #: Attempts among them that called a body.
    tries: int
    #: Time at which the last attempt ended, or else began; none if each lies ahead of the clock.
    moment: datetime | None
    #: The database's clock.
    now: datetime
    #: Not empty where batches were begun.
    cursor: str
    #: True if the last attempt was deleted, though it had to stay.
    is_gone: bool = False


def holds(state: str, retry: bool) -> bool:
    """True if an attempt has its routine held: it may not be repeated, and did not succeed.

    While it runs it is not known how it ends: a successor learns it under the lock.
    """
    return not retry and state in HOLDING


def by_completions(
    wanted: Iterable[tuple[str, int, str]], rows: Collection[tuple[str, int, str | None]]
) -> dict[str, Record]:
    """Return the record of each routine, by name, as far as completions tell it.

    Args:
        wanted: name, version and scope key of each routine.
        rows: the same of each completion of these routines; a scope key of none is ``None``.

    """
    highest = {name: version for name, version, _ in sorted(rows, key=itemgetter(1))}
    found: dict[str, Record] = {}
    for completion in wanted:
        name, version, _ = completion
        if highest.get(name, 0) > version:
            found[name] = _SUPERSEDED
        else:
            found[name] = _DONE if completion in rows else _OPEN
    return found


def judge(
    routine: Routine, standing: Standing, history: list[Attempts], *, is_overtaken: bool = False
) -> Record:
    """Return what attempts, one or more, make of a routine.

    Args:
        routine: the routine.
        standing: as its completions say, and the values that acted.
        history: all attempts at it.
        is_overtaken: True if a later value began, and none is recorded.

    """
    same = [row for row in history if _is_of(routine, row)]
    if standing in (Standing.OPEN, Standing.EARLIER):
        if max(row.version for row in history) > routine.version:
            is_overtaken, standing = True, Standing.SUPERSEDED
        elif standing is Standing.OPEN and any(holds(row.state, row.retry) for row in same):
            standing = Standing.HELD
    last = max(history, key=lambda row: row.number)
    retry_in = _retry_in(routine, history) if same and standing is Standing.OPEN else 0.0
    return Record(
        standing=standing,
        is_overtaken=is_overtaken,
        number=last.number,
        own_number=max((row.number for row in same), default=0),
        tries=sum(row.tries for row in same),
        was_done=any(row.state == State.SUCCEEDED and row.tries for row in same),
        lost_in_a_row=_in_a_row(
            history, last.number, lambda row: row.state in (State.LOST, State.RUNNING)
        ),
        is_running=last.state == State.RUNNING,
        has_running=any(row.state == State.RUNNING for row in history),
        holds_if_lost=last in same and last.state == State.RUNNING and not last.retry,
        is_batched=any(row.cursor for row in same),
        is_gone=any(row.is_gone for row in same),
        retry_in=retry_in,
        retry_at=last.now + timedelta(seconds=retry_in) if retry_in else None,
    )


def _is_of(routine: Routine, row: Attempts) -> bool:
    return (row.version, row.scope_key) == (routine.version, routine.scope_key)


def _in_a_row(history: Iterable[Attempts], last: int, is_meant: Callable[[Attempts], bool]) -> int:
    """Return the number of latest attempts, in a row, that fulfil a condition."""
    return last - max(
        (row.number for row in history if row.number <= last and not is_meant(row)), default=0
    )


def _retry_in(routine: Routine, history: list[Attempts]) -> float:
    """Return the seconds that starting servers still wait after attempts that did not end well."""
    last = max((row for row in history if _is_of(routine, row)), key=lambda row: row.number)
    if last.state not in BAD:
        return 0.0
    in_a_row = _in_a_row(
        history, last.number, lambda row: _is_of(routine, row) and row.state in BAD
    )
    if last.state != State.FAILED:
        in_a_row -= 1  # because a deploy or a lost node ends an attempt without a word
    if not in_a_row or last.moment is None:
        return 0.0
    delay = conf.retry_delay()
    delay = min(delay * 2.0 ** min(in_a_row - 1, 20), max(delay, _RETRY_DELAY_CAP))
    return max(0.0, delay - (last.now - last.moment).total_seconds())
