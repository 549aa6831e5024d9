"""Survey how every routine stands, and name the obstacles: for all that show or judge it."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, Error, connections, router

from once.databases import PATIENCE, database, is_supported, unapplied
from once.models import Completion
from once.record import history
from once.record.advice import takes_over
from once.routines import in_memory, renamed
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status.reading import Reading, described
from once.status.state import RoutineState, Status
from once.words import gettext


def statuses(
    registry: Registry,
    *,
    databases: Collection[str],
    unread: dict[str, Exception] | None = None,
    seconds: float = PATIENCE,
) -> list[Status]:
    """Return the status of every routine: of this code in order, then of the record alone.

    The number of queries does not grow with that of routines.

    Args:
        registry: the routines of this code.
        databases: aliases to keep to. What is recorded in one that has no routine and cannot be
            read is left out.
        unread: where given, a database that cannot be read is left out, and so is a routine whose
            scope cannot, and noted here by its name with why.
        seconds: within which each database has to answer.

    Raises:
        django.db.Error: a database of a routine cannot be reached.

    """
    used = _used(registry)
    listed: list[Status] = []
    for routine in registry.process:
        has_run = in_memory.has_run(routine)
        state = RoutineState.COMPLETED if has_run else RoutineState.PENDING
        listed.append(Status(**described(routine), state=state))
    strangers: dict[tuple[object, ...], Status] = {}
    # Databases of routines come first, because a replica shows the rows of its primary.
    for using in sorted(databases, key=lambda alias: (alias not in used, alias)):
        routines = [routine for routine in registry.recorded if routine.using == using]
        if unread is not None:
            errors = ((routine.name, routine.scope_error()) for routine in routines)
            unread |= {name: error for name, error in errors if error is not None}
            routines = [routine for routine in routines if routine.name not in unread]
        if not routines and not _has_record(using, seconds):
            continue
        try:
            of_code, of_record = _read(using, routines, seconds)
        except (Error, ImproperlyConfigured, OSError) as error:
            if unread is None:
                raise
            unread[using] = error
            continue
        listed += of_code
        for status in of_record:
            # A replica shows the routines of its primary: of one that has none, commands only.
            if using in used or status.kind == "call":
                strangers.setdefault((status.name, status.started_at, status.pid), status)
    position = {routine.name: index for index, routine in enumerate(registry)}
    listed.sort(key=lambda status: position[status.name])
    listed = _with_obstacles(listed, registry)
    listed = _with_suspicions(listed, [*strangers.values()], registry)
    return listed + [status for status in strangers.values() if status.name not in position]


def statuses_of(
    registry: Registry, routines: Iterable[Routine], *, seconds: float = PATIENCE
) -> list[Status]:
    """Return the status of some routines, and read no other database than theirs."""
    using = {routine.name: routine.using for routine in routines}
    listed = statuses(registry, databases={*using.values()}, seconds=seconds)
    return [status for status in listed if status.name in using]


def recording(registry: Registry) -> list[str]:
    """Return the aliases of databases that may have a record: of routines, and all that have."""
    used = _used(registry)
    return sorted(each for each in connections if each in used or _has_record(each, PATIENCE))


def _used(registry: Registry) -> set[str]:
    return {*registry.databases, DEFAULT_DB_ALIAS}


def _read(using: str, routines: list[Routine], seconds: float) -> tuple[list[Status], list[Status]]:
    """Return how routines stand in their database, and what else is recorded there."""
    with database(using).reading(seconds):
        if history.is_installed(using):
            reading = Reading(using, routines)
            return [reading.routine(routine) for routine in routines], reading.strangers()
        message = without_tables(using)
    blocked = [
        Status(**described(routine), state=RoutineState.BLOCKED, database=using, message=message)
        for routine in routines
    ]
    return blocked, []


def without_tables(using: str) -> str:
    """Return what to do about a database in which the tables of the record are missing."""
    is_migrated = not any(each.startswith("once.") for each in unapplied.names(using))
    if is_migrated:
        return gettext(history.LOST_TABLES)
    return gettext("The tables of once are missing. Run `manage.py once run --migrate`.")


def _has_record(using: str, seconds: float) -> bool:
    """True if a database without routines of this code has a record."""
    if not is_supported(using) or not router.allow_migrate_model(using, Completion):
        return False
    try:
        with database(using).reading(seconds):
            return history.is_installed(using)
    except Error:
        return False


def _with_obstacles(listed: list[Status], registry: Registry) -> list[Status]:
    """Return the same, and of what waits for a predecessor: which it is, and why.

    A predecessor that is pending itself, and waits for none, is no obstacle: one run does both.
    """
    by_name = {status.name: status for status in listed}
    for routine in registry.recorded:
        status = by_name.get(routine.name)
        if status is None or status.state not in (RoutineState.PENDING, RoutineState.FAILED):
            continue
        for predecessor in registry.predecessors(routine):
            before = by_name.get(predecessor.name)
            if before is not None and before.waits_for:
                before = by_name[before.waits_for]
            if before is not None and (why := _why_not_done(before)):
                waits = gettext("Waits for {}, which {}.").format(before.name, why)
                message = (status.message or takes_over()).replace(takes_over(), waits)
                by_name[status.name] = replace(status, waits_for=before.name, message=message)
                break
    return [by_name[status.name] for status in listed]


def _why_not_done(status: Status) -> str:
    if status.state is RoutineState.COMPLETED and status.failed_items:
        return gettext("has failed items. {}").format(status.message).rstrip(".")
    if status.state is RoutineState.RUNNING:
        return gettext("is run on {}").format(status.place)
    if status.state is RoutineState.SUPERSEDED:
        is_recorded = (status.recorded_version or 0) > (status.version or 0)
        if status.renamed_to:
            is_recorded = status.completed_at is not None
        elif status.message:  # of an earlier value, without a version if no later one is recorded
            is_recorded = status.recorded_version is not None
        return "" if is_recorded else gettext("was begun by newer code, and is not done yet")
    return {
        RoutineState.FAILED: gettext("failed"),
        RoutineState.HELD: gettext("is held"),
        RoutineState.PAUSED: gettext("is paused"),
        RoutineState.BLOCKED: gettext("is blocked"),
    }.get(status.state, "")


def _with_suspicions(
    listed: list[Status], strangers: list[Status], registry: Registry
) -> list[Status]:
    """Return the same; new routines that may have been renamed say so, the first in full."""
    messages: dict[str, str] = {}
    ours = {status.renamed_to for status in listed}
    unknown = [
        each for each in strangers if each.state is RoutineState.UNKNOWN and each.name not in ours
    ]
    for using in {status.database for status in unknown}:
        recorded = [each.name for each in unknown if each.database == using]
        new = [each.name for each in listed if each.database == using and _is_new(each)]
        for each in renamed.suspicions(str(using), new, registry, recorded):
            messages |= {name: each.of(name) for name in each.new}
    return [
        replace(status, message=messages[status.name]) if status.name in messages else status
        for status in listed
    ]


def _is_new(status: Status) -> bool:
    is_untried = not (status.attempts or status.recorded_version or status.message)
    return is_untried and status.state is RoutineState.PENDING
