"""How every routine stands, for people and for programs."""

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from time import monotonic
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error

from once import ledger, migrate, process
from once.base import RESERVED, Routine
from once.databases import database
from once.ledger import Standing
from once.models import Attempt, Completion, State
from once.registry import Registry
from once.waiting import Wait

__all__ = ["RoutineState", "Status", "is_done", "statuses", "to_json", "wait"]

SCHEMA = 1


class RoutineState(enum.StrEnum):
    """What a routine's state is called everywhere."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    BLOCKED = "blocked"
    SUPERSEDED = "superseded"
    UNKNOWN = "unknown"


_SETTLED = (RoutineState.COMPLETED, RoutineState.SUPERSEDED, RoutineState.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One routine, as JSON shows it. Times are by the database's clock."""

    name: str
    #: Of this code; ``None`` where this code has no such routine.
    version: int | None = None
    #: The highest one that is recorded.
    recorded_version: int | None = None
    scope: str | None = None
    kind: str | None = None
    state: RoutineState
    database: str | None = None
    #: How many attempts there were, at all versions.
    attempts: int = 0
    #: Of the last attempt, like the rest.
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_seconds: float | None = None
    host: str | None = None
    pid: int | None = None
    processed: int | None = None
    total: int | None = None
    retry_at: datetime | None = None
    error: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing left to wait for; in memory there never is."""
        return self.state in _SETTLED or self.kind == "process"


def statuses(registry: Registry) -> list[Status]:
    """The status of every routine: those of this code in order, then those only recorded.

    Raises:
        django.db.Error: a database cannot be reached.

    """
    found = [_process_status(routine) for routine in registry.process]
    unknown: list[Status] = []
    for using in sorted({routine.using for routine in registry.recorded} | {DEFAULT_DB_ALIAS}):
        here = [routine for routine in registry.recorded if routine.using == using]
        if not here and not _is_installed(using):
            continue
        known, strange = _statuses_of(using, here)
        found += known
        unknown += strange
    position = {routine.name: index for index, routine in enumerate(registry)}
    return sorted(found, key=lambda status: position[status.name]) + unknown


def is_done(routines: Iterable[Routine]) -> bool:
    """Whether each of the routines is done, or superseded. One query for each database."""
    routines = list(routines)
    stands = ledger.standing(routines)
    return all(stands[routine.name] is not Standing.OPEN for routine in routines)


def wait(registry: Registry, routines: Sequence[Routine], *, timeout: float | None = None) -> None:
    """Return when each of the routines is done, by whomever. Runs nothing.

    Args:
        registry: where the routines come from.
        routines: what to wait for.
        timeout: seconds after which to give up; none by default.

    Raises:
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
                if is_done(routines):
                    return
                reason = _in_the_way(registry, routines)
            except Error as error:
                waiting.survive(error)
            else:
                waiting.pause(reason)


def to_json(found: Iterable[Status], outcomes: dict[str, str] | None = None) -> dict[str, Any]:
    """The one object that ``--json`` prints; its keys are a contract."""
    found = list(found)
    rows = []
    for status in found:
        row = asdict(status)
        if outcomes is not None:
            row["outcome"] = outcomes.get(status.name)
        rows.append(row)
    return {
        "schema": SCHEMA,
        "done": all(status.is_settled for status in found),
        "counts": dict(Counter(str(status.state) for status in found)),
        "routines": rows,
    }


def _in_the_way(registry: Registry, routines: Iterable[Routine]) -> str:
    wanted = {routine.name for routine in routines}
    undone = [one for one in statuses(registry) if one.name in wanted and not one.is_settled]
    if not undone:
        return "the last routine has just been done"
    first = min(undone, key=lambda one: one.state is not RoutineState.RUNNING)
    by = f" on {first.host} (pid {first.pid})" if first.state is RoutineState.RUNNING else ""
    more = f", and {len(undone) - 1} more are not done" if len(undone) > 1 else ""
    return f"{first.name} is {first.state}{by}{more}"


def _process_status(routine: Routine) -> Status:
    state = RoutineState.COMPLETED if process.has_run(routine) else RoutineState.PENDING
    return Status(
        name=routine.name,
        version=routine.version,
        scope=routine.scope,
        kind="process",
        state=state,
    )


def _is_installed(using: str) -> bool:
    try:
        return ledger.is_installed(using)
    except Error:
        return False


def _statuses_of(using: str, routines: list[Routine]) -> tuple[list[Status], list[Status]]:
    if not ledger.is_installed(using):
        message = "The tables of once are missing. Run `manage.py migrate`."
        return [
            _status(routine, RoutineState.BLOCKED, None, None, message) for routine in routines
        ], []
    stands = ledger.standing(routines)
    completions = ledger.recorded(using)
    attempts = ledger.last_attempts(using)
    unapplied = (
        migrate.unapplied(using) if any(stands[r.name] is Standing.OPEN for r in routines) else []
    )
    known = []
    for routine in routines:
        attempt = attempts.pop(routine.name, None)
        state, message = _state(routine, stands[routine.name], attempt, unapplied)
        completion = completions.pop(routine.name, None)
        known.append(_status(routine, state, completion, attempt, message))
    unknown = [
        Status(
            name=name,
            recorded_version=completion.version,
            state=RoutineState.UNKNOWN,
            database=using,
            completed_at=completion.completed_at,
            **_history(attempts.get(name)),
        )
        for name, completion in completions.items()
        if not name.startswith(RESERVED)
    ]
    return known, unknown


def _state(
    routine: Routine, stands: Standing, attempt: Attempt | None, unapplied: list[str]
) -> tuple[RoutineState, str]:
    if stands is Standing.DONE:
        return RoutineState.COMPLETED, ""
    if stands is Standing.SUPERSEDED:
        return RoutineState.SUPERSEDED, ""
    if attempt and attempt.state == State.RUNNING:
        if database(routine.using).holder(routine.name) is not None:
            return RoutineState.RUNNING, ""
        return RoutineState.PENDING, (
            f"Attempt {attempt.number} on {attempt.host} (pid {attempt.pid}) went without a word. "
            "The next `manage.py once run` or server start takes over."
        )
    if unapplied:
        return RoutineState.BLOCKED, f"Unapplied migrations: {', '.join(unapplied)}"
    if attempt and attempt.state == State.FAILED:
        return RoutineState.FAILED, attempt.error
    return RoutineState.PENDING, ""


def _status(
    routine: Routine,
    state: RoutineState,
    completion: Completion | None,
    attempt: Attempt | None,
    message: str,
) -> Status:
    return Status(
        name=routine.name,
        version=routine.version,
        recorded_version=completion.version if completion else None,
        scope=routine.scope,
        kind="atomic",
        state=state,
        database=routine.using,
        completed_at=completion.completed_at if completion else None,
        error=message or None,
        **_history(attempt),
    )


def _history(attempt: Attempt | None) -> dict[str, Any]:
    if attempt is None:
        return {}
    duration = None
    if attempt.finished_at is not None:
        duration = (attempt.finished_at - attempt.started_at).total_seconds()
    return {
        "attempts": attempt.number,
        "started_at": attempt.started_at,
        "duration_seconds": duration,
        "host": attempt.host,
        "pid": attempt.pid,
        "processed": attempt.processed,
        "total": attempt.total,
    }
