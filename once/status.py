"""How every routine stands, for people and for programs."""

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db import Error, connections, router

from once import migrate, process, record
from once.base import CALL, RESERVED, Routine
from once.databases import SUPPORTED, database
from once.models import Attempt, Completion, State
from once.record import Record, Standing
from once.registry import Registry
from once.report import way_out
from once.text import last_line

__all__ = ["RoutineState", "Status", "statuses", "to_json"]

SCHEMA = 1


class RoutineState(enum.StrEnum):
    """What a routine's state is called everywhere."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    HELD = "held"
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
    #: ``atomic``, ``batched``, ``external``, ``process``; ``call`` for what ``once call`` ran.
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
    #: Items of a batched routine, by all attempts at this completion.
    processed: int | None = None
    total: int | None = None
    #: Items a second of the last attempt, and what is left by that.
    rate: float | None = None
    seconds_left: float | None = None
    #: Until when starting servers leave it out after a failure.
    retry_at: datetime | None = None
    error: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing left to wait for; in memory, or for a command, never is."""
        return self.state in _SETTLED or self.kind in ("process", "call")


def statuses(registry: Registry) -> list[Status]:
    """The status of every routine: those of this code in order, then those only recorded.

    Raises:
        django.db.Error: a database cannot be reached.

    """
    found = [_process_status(routine) for routine in registry.process]
    unknown: list[Status] = []
    for using in sorted(connections.settings):
        here = [routine for routine in registry.recorded if routine.using == using]
        if not here and not _has_record(using):
            continue
        known, strange = _statuses_of(using, here)
        found += known
        unknown += strange
    position = {routine.name: index for index, routine in enumerate(registry)}
    return sorted(found, key=lambda status: position[status.name]) + unknown


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


def _process_status(routine: Routine) -> Status:
    state = RoutineState.COMPLETED if process.has_run(routine) else RoutineState.PENDING
    return Status(
        name=routine.name,
        version=routine.version,
        scope=str(routine.scope),
        kind=routine.kind,
        state=state,
    )


def _has_record(using: str) -> bool:
    """Whether a database without routines of this code knows others, or commands once called."""
    if connections[using].vendor not in SUPPORTED or not router.allow_migrate_model(
        using, Completion
    ):
        return False
    try:
        return record.is_installed(using)
    except Error:
        return False


def _statuses_of(using: str, routines: list[Routine]) -> tuple[list[Status], list[Status]]:
    if not record.is_installed(using):
        message = "The tables of once are missing. Run `manage.py migrate`."
        return [_status(routine, RoutineState.BLOCKED, error=message) for routine in routines], []
    stands = record.read(routines)
    completions = record.recorded(using)
    attempts = record.last_attempts(using)
    is_open = any(found.standing is Standing.OPEN for found in stands.values())
    unapplied = migrate.unapplied(using) if is_open else []
    known = []
    for routine in routines:
        last = attempts.pop(routine.name, None)
        done = completions.pop(routine.name, [])
        same = [row for row in done if row.scope_key == routine.scope_key]
        state, message = _state(routine, stands[routine.name], last and last[0], unapplied)
        known.append(
            _status(
                routine,
                state,
                retry_at=stands[routine.name].retry_at,
                error=message or None,
                **_completed((same or done)[-1:]),
                **_history(last),
            )
        )
    return known, _strangers(using, completions, attempts)


def _strangers(
    using: str,
    completions: dict[str, list[Completion]],
    attempts: dict[str, tuple[Attempt, datetime]],
) -> list[Status]:
    """What is recorded and not in this code: commands of ``once call``, and unknown routines."""
    found = []
    for name in sorted({*completions, *(name for name in attempts if name.startswith(CALL))}):
        if name.startswith(RESERVED):
            continue
        last = attempts.get(name)
        done = completions.get(name, [])
        state, message, kind, version = RoutineState.UNKNOWN, "", None, None
        if name.startswith(CALL):
            kind, version = "call", last[0].version if last else done[-1].version
            versions = [row.version for row in done]
            if last is None or last[0].version in versions:
                state = RoutineState.COMPLETED
            else:
                state, message = _tried(using, last[0])
        found.append(
            Status(
                name=name,
                version=version,
                kind=kind,
                state=state,
                database=using,
                error=message or None,
                **_completed(done[-1:]),
                **_history(last),
            )
        )
    return found


def _state(
    routine: Routine, found: Record, attempt: Attempt | None, unapplied: list[str]
) -> tuple[RoutineState, str]:
    if found.standing is Standing.DONE:
        return RoutineState.COMPLETED, ""
    if found.standing is Standing.SUPERSEDED:
        return RoutineState.SUPERSEDED, ""
    if found.standing is Standing.HELD:
        return RoutineState.HELD, _why_held(routine)
    state, message = _tried(routine.using, attempt)
    if unapplied and state is not RoutineState.RUNNING:
        return RoutineState.BLOCKED, f"Unapplied migrations: {', '.join(unapplied)}"
    return state, message


def _why_held(routine: Routine) -> str:
    attempt = record.last_failure(routine)
    if attempt is None:
        return way_out(routine.name)
    what = f" ({last_line(attempt.error)})" if attempt.error else ""
    return (
        f"Attempt {attempt.number} on {attempt.host} (pid {attempt.pid}) was {attempt.state}"
        f"{what}. {way_out(routine.name)}"
    )


def _tried(using: str, attempt: Attempt | None) -> tuple[RoutineState, str]:
    """The state of what is not done, by the last attempt at it."""
    if attempt is None:
        return RoutineState.PENDING, ""
    if attempt.state == State.FAILED:
        return RoutineState.FAILED, attempt.error
    if attempt.state != State.RUNNING:
        return RoutineState.PENDING, ""
    if database(using).holder(attempt.routine) is not None:
        return RoutineState.RUNNING, ""
    return RoutineState.PENDING, (
        f"Attempt {attempt.number} on {attempt.host} (pid {attempt.pid}) went without a word. "
        "The next `manage.py once run` or server start takes over."
    )


def _status(routine: Routine, state: RoutineState, **details: Any) -> Status:
    return Status(
        name=routine.name,
        version=routine.version,
        scope=str(routine.scope),
        kind=routine.kind,
        state=state,
        database=routine.using,
        **details,
    )


def _completed(last: list[Completion]) -> dict[str, Any]:
    if not last:
        return {}
    return {"recorded_version": last[0].version, "completed_at": last[0].completed_at}


def _history(last: tuple[Attempt, datetime] | None) -> dict[str, Any]:
    if last is None:
        return {}
    attempt, now = last
    duration = None
    if attempt.finished_at is not None:
        duration = (attempt.finished_at - attempt.started_at).total_seconds()
    history = {
        "attempts": attempt.number,
        "started_at": attempt.started_at,
        "duration_seconds": duration,
        "host": attempt.host,
        "pid": attempt.pid,
    }
    return history | (_progress(attempt, now) if attempt.cursor else {})


def _progress(attempt: Attempt, now: datetime) -> dict[str, Any]:
    """How far a batched routine is, and how fast it goes."""
    total = attempt.total
    if total is not None:
        total = max(total, attempt.processed)  # rows may appear meanwhile
    seconds = ((attempt.finished_at or now) - attempt.started_at).total_seconds()
    own = attempt.processed - attempt.resumed
    rate = own / seconds if own > 0 and seconds > 0 else None
    left = None
    if rate and total is not None and attempt.state == State.RUNNING:
        left = round((total - attempt.processed) / rate, 1)
    return {
        "processed": attempt.processed,
        "total": total,
        "rate": rate and round(rate, 3),
        "seconds_left": left,
    }
