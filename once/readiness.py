"""Is everything done that a server needs to have done, and waiting until it is."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from time import monotonic

from django.db import Error

from once import record
from once.base import Routine
from once.databases import database
from once.exceptions import Held
from once.record import Record, Standing
from once.registry import Registry
from once.report import way_out
from once.status import RoutineState, statuses
from once.waiting import Wait

__all__ = ["is_done", "wait"]


def is_done(routines: Iterable[Routine]) -> bool:
    """Whether each of the routines is done, or superseded. One query for each database."""
    return all(_is_done(found) for found in record.read(list(routines)).values())


def wait(registry: Registry, routines: Sequence[Routine], *, timeout: float | None = None) -> None:
    """Return when each of the routines is done, by whomever. Runs nothing.

    Args:
        registry: where the routines come from.
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
        patience=float("inf"),
    )
    with ExitStack() as sessions:
        for using in sorted({routine.using for routine in routines}):
            sessions.enter_context(database(using).session())
        while True:
            try:
                stands = record.read(routines)
                for routine in routines:
                    if record.is_held(routine, stands[routine.name]):
                        raise Held(f"{routine.name}: {way_out(routine.name)}")
                if all(map(_is_done, stands.values())):
                    return
                waiting.pause(lambda: _in_the_way(registry, routines))
            except Error as error:
                if _is_installed(routines):
                    waiting.survive(error)
                else:
                    waiting.pause(
                        "the tables of once are missing: run `manage.py once run --migrate`"
                    )


def _is_done(found: Record) -> bool:
    return found.standing in (Standing.DONE, Standing.SUPERSEDED)


def _in_the_way(registry: Registry, routines: Iterable[Routine]) -> str:
    wanted = {routine.name for routine in routines}
    undone = [one for one in statuses(registry) if one.name in wanted and not one.is_settled]
    if not undone:
        return "the last routine has just been done"
    first = min(undone, key=lambda one: one.state is not RoutineState.RUNNING)
    by = f" on {first.host} (pid {first.pid})" if first.state is RoutineState.RUNNING else ""
    more = f", and {len(undone) - 1} more are not done" if len(undone) > 1 else ""
    return f"{first.name} is {first.state}{by}{more}"


def _is_installed(routines: Iterable[Routine]) -> bool:
    try:
        return all(record.is_installed(using) for using in {one.using for one in routines})
    except Error:
        return True  # who knows: the database cannot be reached
