"""How every routine stands, for people and for programs."""

import enum
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, Error, connections, router

from once import migrate, process, record
from once.base import CALL, RESERVED, Routine
from once.databases import SUPPORTED, database
from once.models import Attempt, Completion, State
from once.record import Record, Standing
from once.registry import Registry
from once.report import describe, way_out
from once.results import Result

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
    #: How many attempts there were at this version, and for this release or state of files.
    attempts: int = 0
    #: Of the last of them, or of the one that runs, like the rest.
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
    #: The traceback of the last attempt, where that failed.
    error: str | None = None
    #: What a person should know, and do next.
    message: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it asks for no run: done, not for this code, in memory, or a command's."""
        return self.state in _SETTLED or self.kind in ("process", "call")


def statuses(
    registry: Registry,
    *,
    databases: Collection[str] | None = None,
    unread: dict[str, Exception] | None = None,
) -> list[Status]:
    """The status of every routine: those of this code in order, then those only recorded.

    The number of queries does not grow with that of routines.

    Args:
        registry: the routines of this code.
        databases: aliases to keep to; those of routines, and ``"default"``, where not given. What
            is recorded in one that has no routine and cannot be read is left out.
        unread: where given, a database that cannot be read is left out, and so is a routine whose
            scope cannot, and noted here by its name with why.

    Raises:
        django.db.Error: a database of a routine cannot be reached.

    """
    used = {routine.using for routine in registry.recorded} | {DEFAULT_DB_ALIAS}
    found = [_process_status(routine) for routine in registry.process]
    strangers: dict[tuple[object, ...], Status] = {}
    # Those of routines first: what a replica of one shows as well is the primary's.
    for using in sorted(
        used if databases is None else databases, key=lambda one: (one not in used, one)
    ):
        here = [routine for routine in registry.recorded if routine.using == using]
        if unread is not None:
            here = _without_broken_scopes(here, unread)
        if not here and not _has_record(using):
            continue
        try:
            with database(using).reading():
                known, strange = _statuses_of(using, here)
        except (Error, ImproperlyConfigured, OSError) as error:
            if unread is None:
                raise
            unread[using] = error
            continue
        found += known
        # A replica shows the routines of its primary: of one that has none, commands only.
        mine = [one for one in strange if using in used or one.kind == "call"]
        for one in mine:
            strangers.setdefault((one.name, one.started_at, one.pid), one)
    position = {routine.name: index for index, routine in enumerate(registry)}
    return sorted(found, key=lambda status: position[status.name]) + [
        one for one in strangers.values() if one.name not in position
    ]


def to_json(found: Iterable[Status], results: Iterable[Result] | None = None) -> dict[str, Any]:
    """The one object that ``--json`` prints; its keys are a contract.

    Args:
        found: the routines to show.
        results: what a run did about them.

    """
    found = list(found)
    results = None if results is None else list(results)
    outcomes = {result.routine.name: str(result.outcome) for result in results or ()}
    rows = []
    for status in found:
        row = asdict(status)
        if results is not None:
            row["outcome"] = outcomes.get(status.name)
        rows.append(row)
    return {
        "schema": SCHEMA,
        "done": all(each.is_done for each in results)
        if results is not None
        else all(status.is_settled for status in found),
        "counts": dict(Counter(str(status.state) for status in found)),
        "routines": rows,
    }


def _without_broken_scopes(routines: list[Routine], unread: dict[str, Exception]) -> list[Routine]:
    sound = []
    for routine in routines:
        try:
            routine.check_scope()
        except ImproperlyConfigured as error:
            unread[routine.name] = error
        else:
            sound.append(routine)
    return sound


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
    """Whether a database without routines of this code has a record."""
    if connections[using].vendor not in SUPPORTED:
        return False
    if not router.allow_migrate_model(using, Completion):
        return False
    try:
        with database(using).reading():
            return record.is_installed(using)
    except Error:
        return False


def _statuses_of(using: str, routines: list[Routine]) -> tuple[list[Status], list[Status]]:
    """What a database says: of the routines that live in it, and of what else it knows."""
    if not record.is_installed(using):
        message = "The tables of once are missing. Run `manage.py once run --migrate`."
        blocked = RoutineState.BLOCKED
        return [_status(routine, blocked, message=message) for routine in routines], []
    stands = record.read(routines, thoroughly=True)
    completions = record.recorded(using)
    last = record.last_attempts(using)
    now = record.now(using) if last else None
    own = record.attempts(using, {name: found.own_number for name, found in stands.items()})
    running = {name for name, found in stands.items() if found.has_running}
    running |= {name for name, attempt in last.items() if attempt.state == State.RUNNING}
    live = database(using).held(running) if running else set()
    held = _held(routines, stands, live)
    failures = record.last_failures(using, held) if held else {}
    is_open = any(found.standing is Standing.OPEN for found in stands.values())
    unapplied = migrate.unapplied(using) if is_open else []
    known = []
    for routine in routines:
        name, found = routine.name, stands[routine.name]
        done = completions.pop(name, [])
        same = [row for row in done if row.scope_key == routine.scope_key]
        attempt = own.get(name)
        if found.is_running:
            attempt = last[name]  # of another version perhaps: they exclude each other
        if routine in held:
            state, message = RoutineState.HELD, ""
            # Not of one that came after it, and was not allowed to do anything.
            attempt = failures.get(name) or attempt
            what = f"{describe(attempt)}. " if attempt else ""
            message = f"{what}{way_out(name)}"
        else:
            state, message = _state(found, attempt, unapplied, live)
        known.append(
            _status(
                routine,
                state,
                retry_at=found.retry_at,
                attempts=found.tries,
                error=_error(state, attempt),
                message=message or None,
                **_completed(using, (same or done)[-1:]),
                **_history(using, attempt, now, state),
            )
        )
    strangers = {name: row for name, row in last.items() if name not in stands}
    return known, _strangers(using, completions, strangers, now, live)


def _held(routines: list[Routine], stands: dict[str, Record], live: set[str]) -> list[Routine]:
    """Those that wait for a person's decision, or do as soon as anybody looks."""
    held = [one for one in routines if stands[one.name].standing is Standing.HELD]
    lost = [
        one
        for one in routines
        if stands[one.name].standing is Standing.OPEN
        and stands[one.name].holds_if_lost
        and one.name not in live
    ]
    if lost:
        again = record.read(lost)  # it may just have ended
        held += [one for one in lost if again[one.name].is_running]
    return held


def _strangers(
    using: str,
    completions: dict[str, list[Completion]],
    attempts: dict[str, Attempt],
    now: datetime | None,
    live: set[str],
) -> list[Status]:
    """What is recorded and not in this code: commands of ``once call``, and unknown routines."""
    found = []
    for name in sorted({*completions, *(name for name in attempts if name.startswith(CALL))}):
        if name.startswith(RESERVED):
            continue
        attempt = attempts.get(name)
        done = completions.get(name, [])
        state, message, kind, version = RoutineState.UNKNOWN, "", None, None
        if name.startswith(CALL):
            kind, version = "call", attempt.version if attempt else done[-1].version
            state = RoutineState.COMPLETED
            if version not in {row.version for row in done}:
                state, message = _tried(attempt, live)
        found.append(
            Status(
                name=name,
                version=version,
                kind=kind,
                state=state,
                database=using,
                attempts=attempt.number if attempt else 0,
                error=_error(state, attempt),
                message=message or None,
                **_completed(using, done[-1:]),
                **_history(using, attempt, now, state),
            )
        )
    return found


def _state(
    found: Record, attempt: Attempt | None, unapplied: list[str], live: set[str]
) -> tuple[RoutineState, str]:
    if found.standing is Standing.DONE:
        return RoutineState.COMPLETED, ""
    if found.standing is Standing.SUPERSEDED:
        return RoutineState.SUPERSEDED, ""
    state, message = _tried(attempt, live)
    if unapplied and state is not RoutineState.RUNNING:
        return RoutineState.BLOCKED, (
            f"Unapplied migrations: {', '.join(unapplied)}. Run `manage.py once run --migrate`."
        )
    return state, message


def _tried(attempt: Attempt | None, live: set[str]) -> tuple[RoutineState, str]:
    """The state of what is not done, by the last attempt at it and by which guards are held."""
    if attempt is None:
        return RoutineState.PENDING, ""
    if attempt.state == State.FAILED:
        return RoutineState.FAILED, ""
    if attempt.state != State.RUNNING:
        return RoutineState.PENDING, ""
    if attempt.routine in live:
        return RoutineState.RUNNING, ""
    return RoutineState.PENDING, (
        f"{describe(attempt)}. The next `manage.py once run` or server start takes over."
    )


def _error(state: RoutineState, attempt: Attempt | None) -> str | None:
    shows = state in (RoutineState.FAILED, RoutineState.HELD)
    return attempt.error or None if shows and attempt else None


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


def _completed(using: str, last: list[Completion]) -> dict[str, Any]:
    if not last:
        return {}
    completed_at = database(using).aware(last[0].completed_at)
    return {"recorded_version": last[0].version, "completed_at": completed_at}


def _history(
    using: str, attempt: Attempt | None, now: datetime | None, state: RoutineState
) -> dict[str, Any]:
    if attempt is None:
        return {}
    aware = database(using).aware
    started = aware(attempt.started_at)
    finished = attempt.finished_at and aware(attempt.finished_at)
    history = {
        "started_at": started,
        "duration_seconds": (finished - started).total_seconds() if finished else None,
        "host": attempt.host,
        "pid": attempt.pid,
    }
    if not attempt.cursor:
        return history
    seconds = ((finished or now or started) - started).total_seconds()
    return history | _progress(attempt, seconds, state)


def _progress(attempt: Attempt, seconds: float, state: RoutineState) -> dict[str, Any]:
    """How far a batched routine is, and how fast it goes."""
    total = attempt.total
    if total is not None:
        total = max(total, attempt.processed)  # rows may appear meanwhile
    own = attempt.processed - attempt.resumed
    rate = own / seconds if own > 0 and seconds > 0 else None
    left = None
    if rate and total is not None and state is RoutineState.RUNNING:
        left = round((total - attempt.processed) / rate, 1)
    return {
        "processed": attempt.processed,
        "total": total,
        "rate": rate and round(rate, 3),
        "seconds_left": left,
    }
