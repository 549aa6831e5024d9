"""Is everything done that a server needs to have done, and waiting until it is."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic

from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from once import conf
from once.databases import PATIENCE, database, unapplied
from once.engine.backoff import Retry, Wait
from once.exceptions import Held, Paused
from once.log import forget, news, tell
from once.record import history, wishes
from once.record.advice import hint
from once.record.standing import Record, Standing
from once.routines import registry
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status.state import RoutineState, Status
from once.status.survey import statuses_of, without_tables
from once.text import one_line

#: Seconds in which a database has to say whether everything is done: a probe gives up.
PROBE = 2.0

#: The errors of a probe that gets no answer.
UNANSWERED = (Error, ImproperlyConfigured, OSError)

_UNKNOWN = "readiness"


@contextmanager
def answering() -> Iterator[None]:
    """A context for a probe; that it gets no answer is logged, once as long as that lasts."""
    try:
        yield
    except UNANSWERED as error:
        reason = one_line(error)
        tell(news(logging.INFO, _UNKNOWN, reason), "readiness_unknown", reason=reason)
        raise
    forget(_UNKNOWN)


def is_ready() -> bool:
    """True if every start-up routine is done and every migration of this code applied.

    It asks the databases until then, and no more from then on: a routine that is made pending
    again while this server lives does not make it unready, nor a worker that replaces another.

    Raises:
        django.db.Error: a database cannot be asked.
        ImproperlyConfigured: a routine lacks what it needs to be identified.
        OSError: a file of a scope cannot be read.

    """
    site = registry.site
    if not site.is_ready:
        declared = registry.load()
        if is_done(declared.startup, unapplied.databases(declared.databases)):
            site.is_ready = True
            # A server whose start was complete has said as much.
            tell(logging.DEBUG if site.was_complete else logging.INFO, "ready")
    return site.is_ready


def is_done(routines: Sequence[Routine], aliases: Iterable[str]) -> bool:
    """Return True if each of the routines is done, or superseded, and no database is behind.

    Asks two queries of a database where all is completed. Where everything was done as this server
    started, what was reset since counts as done. ``aliases`` are of databases that must have every
    migration.
    """
    has_been = registry.site.was_complete
    # Because many databases may be on one server, each is read after the other.
    for using, mine in _by_database(routines, aliases).items():
        with database(using).reading(PROBE):
            records = history.read(mine).values()
            if not all(record.is_done or (has_been and record.was_done) for record in records):
                return False
            if unapplied.names(using):
                return False
    return True


def wait(
    declared: Registry,
    routines: Sequence[Routine],
    aliases: Iterable[str],
    *,
    timeout: float | None = None,
) -> None:
    """Return when each of the routines is done, by whatever process. Runs nothing.

    Args:
        declared: all routines of this code.
        routines: what to wait for.
        aliases: of the databases that must have every migration of this code, too.
        timeout: seconds after which to give up; none by default.

    Raises:
        Held: a routine waits for a person's decision.
        Paused: a person paused a routine.
        TimedOut: not everything is done at the deadline.
        DatabaseUnavailable: a database is out of reach at the deadline.

    """
    used = _by_database(routines, aliases)
    if not used:
        return
    waiting = Wait(
        name=routines[0].name if len(routines) == 1 else "all routines",
        using=next(iter(used)),
        deadline=None if timeout is None else monotonic() + timeout,
        patience=float("inf"),
    )
    gone: dict[tuple[str, int], float] = {}

    def look() -> Retry | None:
        with waiting.timed():
            return _why_not(declared, routines, used, gone, waiting)

    waiting.until(look)


def _why_not(
    declared: Registry,
    routines: Sequence[Routine],
    used: Mapping[str, list[Routine]],
    gone: dict[tuple[str, int], float],
    waiting: Wait,
) -> Retry | None:
    """Return what is in the way; ``None`` where everything is done."""
    are_done = True
    behind: dict[str, list[str]] = {}
    for using, mine in used.items():
        waiting.using = using  # the database to name where it cannot be asked
        with database(using).session(), database(using).answering(waiting.answer_within):
            stands = history.read_if_installed(mine) if mine else {}
            if len(stands) < len(mine):
                return Retry(without_tables(using).rstrip("."))
            are_done &= _are_done(using, mine, stands, gone)
            behind |= unapplied.lacking([using] if are_done else [])
    if not are_done:
        return Retry(lambda: _in_the_way(declared, routines))
    if behind:
        return Retry(f"{unapplied.behind(behind)}: run `manage.py once run --migrate`")
    return None


def _are_done(
    using: str,
    routines: Sequence[Routine],
    stands: Mapping[str, Record],
    gone: dict[tuple[str, int], float],
) -> bool:
    """Return True if all are done, which are in one database.

    ``gone`` says by attempt when its lock was first seen free. Because its process may have lost
    only the lock, and be about to record the end, it is given the liveness timeout.
    """
    for routine in routines:
        if stands[routine.name].standing is Standing.PAUSED:
            raise Paused(f"{routine.name}: {wishes.explain(using, routine.name)}")
    held = history.held(using, routines, stands)
    for routine in held:
        record = stands[routine.name]
        since = gone.setdefault((routine.name, record.number), monotonic())
        is_final = record.standing is Standing.HELD
        if is_final or monotonic() - since >= conf.liveness_timeout():
            raise Held(f"{routine.name}: {hint(routine.name, is_gone=record.is_gone)}")
    lost = {(routine.name, stands[routine.name].number) for routine in held}
    for attempt in [*gone]:
        if attempt[0] in stands and attempt not in lost:
            del gone[attempt]
    return all(record.is_done for record in stands.values())


def _by_database(routines: Sequence[Routine], aliases: Iterable[str]) -> dict[str, list[Routine]]:
    used = sorted({routine.using for routine in routines} | {*aliases})
    return {using: [each for each in routines if each.using == using] for using in used}


def undone(
    declared: Registry, routines: Iterable[Routine], *, seconds: float = PATIENCE
) -> list[Status]:
    """Return the status of each routine that is not done; databases answer within seconds."""
    listed = statuses_of(declared, routines, seconds=seconds)
    return [status for status in listed if not status.is_settled]


def _in_the_way(declared: Registry, routines: Iterable[Routine]) -> str:
    pending = undone(declared, routines)
    if not pending:
        return "the last routine has just been done"
    first = min(pending, key=lambda status: status.state is not RoutineState.RUNNING)
    by = f" on {first.place}" if first.state is RoutineState.RUNNING else ""
    if first.waits_for:
        by = f" and waits for {first.waits_for}"
    if first.state is RoutineState.HELD:  # for good, this would not be waited for
        return f"{first.name} runs without its lock, or died: it has a moment to record its end"
    more = f", and {len(pending) - 1} more are not done" if len(pending) > 1 else ""
    return f"{first.name} is {first.state}{by}{more}"
