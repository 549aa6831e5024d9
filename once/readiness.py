"""Is everything done that a server needs to have done, and waiting until it is."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from time import monotonic

from django.db import Error

from once import conf, record, registry
from once.base import Routine
from once.databases import database
from once.exceptions import Held
from once.log import tell
from once.record import Record, Standing
from once.registry import Registry
from once.report import way_out
from once.status import RoutineState, Status, statuses
from once.waiting import Wait

__all__ = ["PROBE", "is_done", "is_ready", "undone", "wait"]

#: Seconds in which a database has to answer who asks whether everything is done: a probe gives up.
PROBE = 2.0

_is_ready = False


def is_ready() -> bool:
    """Whether every start-up routine is done, as far as this process is concerned.

    It asks the databases until then, and no more from then on: a routine that is made pending
    again while this process lives does not make it unready.

    Raises:
        django.db.Error: a database cannot be asked.
        ImproperlyConfigured: a routine lacks what it needs to be identified.
        OSError: a file of a scope cannot be read.

    """
    global _is_ready
    if not _is_ready and is_done(registry.load().startup):
        _is_ready = True
        tell(logging.INFO, "ready")
    return _is_ready


def is_done(routines: Iterable[Routine]) -> bool:
    """Whether each of the routines is done, or superseded: at most two queries for a database."""
    wanted = list(routines)
    with ExitStack() as answers:
        for using in {routine.using for routine in wanted}:
            answers.enter_context(database(using).reading(PROBE))
        return all(map(_is_done, record.read(wanted).values()))


def wait(found: Registry, routines: Sequence[Routine], *, timeout: float | None = None) -> None:
    """Return when each of the routines is done, by whomever. Runs nothing.

    Args:
        found: where the routines come from.
        routines: what to wait for.
        timeout: seconds after which to give up; none by default.

    Raises:
        Held: a routine waits for a person's decision.
        TimedOut: not everything is done at the deadline.
        DatabaseUnavailable: a database is out of reach at the deadline.

    """
    if not routines:
        return
    waiting = Wait(
        name="all routines" if len(routines) > 1 else routines[0].name,
        using=routines[0].using,
        deadline=None if timeout is None else monotonic() + timeout,
        limit=float("inf"),
    )
    gone: dict[tuple[str, int], float] = {}
    used = sorted({routine.using for routine in routines})
    with ExitStack() as sessions:
        for using in used:
            sessions.enter_context(database(using).session())
        while True:
            with ExitStack() as answers:
                for using in used:
                    answers.enter_context(database(using).answering(waiting.patience_left))
                try:
                    with waiting.timed():
                        if _are_done(routines, gone):
                            return
                    waiting.pause(lambda: _in_the_way(found, routines))
                except Error as error:
                    is_lost = any(database(using).is_lost(error) for using in used)
                    if is_lost or _is_installed(routines):
                        waiting.survive(error)
                    else:
                        waiting.pause(
                            "the tables of once are missing: run `manage.py once run --migrate`"
                        )


def _are_done(routines: Sequence[Routine], gone: dict[tuple[str, int], float]) -> bool:
    stands = record.read(routines)
    for routine in routines:
        if _is_held(routine, stands[routine.name], gone):
            raise Held(f"{routine.name}: {way_out(routine.name)}")
    return all(map(_is_done, stands.values()))


def undone(found: Registry, routines: Iterable[Routine]) -> list[Status]:
    """How those of some routines stand that are not done."""
    wanted = {routine.name: routine.using for routine in routines}
    shown = statuses(found, databases=set(wanted.values()))
    return [one for one in shown if one.name in wanted and not one.is_settled]


def _is_done(found: Record) -> bool:
    return found.standing in (Standing.DONE, Standing.SUPERSEDED)


def _is_held(routine: Routine, found: Record, gone: dict[tuple[str, int], float]) -> bool:
    """Whether a routine waits for a person, as far as can be known by waiting.

    Args:
        routine: which.
        found: what is recorded of it.
        gone: by attempt, since when its guard has been seen to be free. Who lost nothing else may
            be about to record its end, so that it is given as long as a guard may be silent.

    """
    if found.standing is Standing.HELD:
        return True
    attempt = routine.name, found.number
    if not record.is_held(routine, found):
        gone.pop(attempt, None)
        return False
    return monotonic() - gone.setdefault(attempt, monotonic()) >= conf.liveness_timeout()


def _in_the_way(found: Registry, routines: Iterable[Routine]) -> str:
    shown = undone(found, routines)
    if not shown:
        return "the last routine has just been done"
    first = min(shown, key=lambda one: one.state is not RoutineState.RUNNING)
    by = f" on {first.host} (pid {first.pid})" if first.state is RoutineState.RUNNING else ""
    if first.state is RoutineState.HELD:  # for good, this would not be waited for
        return f"{first.name} runs without its guard, or died: it has a moment to record its end"
    more = f", and {len(shown) - 1} more are not done" if len(shown) > 1 else ""
    return f"{first.name} is {first.state}{by}{more}"


def _is_installed(routines: Iterable[Routine]) -> bool:
    try:
        return all(record.is_installed(using) for using in {one.using for one in routines})
    except Error:
        return True  # who knows: the database cannot be reached
