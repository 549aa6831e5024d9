"""Words for a routine's status, at a terminal and in the admin alike."""

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from django.db import DEFAULT_DB_ALIAS
from django.utils.formats import date_format
from django.utils.timezone import localtime

from once.models import Trigger
from once.record import wishes
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status.state import RoutineState, Status
from once.words import gettext, is_translated, number

_FAILED = (RoutineState.FAILED, RoutineState.HELD)


def moment(when: datetime | None) -> str:
    """Return a time in the reader's zone, to the second, or nothing."""
    if when is None:
        return ""
    try:
        local = localtime(when)
    except ZoneInfoNotFoundError:  # because this machine lacks data of that zone
        local = when.astimezone(UTC)
    day = date_format(local) + "," if is_translated() else f"{local:%Y-%m-%d}"
    return f"{day} {local:%H:%M:%S %Z}"


def duration(seconds: float | None, digits: int = 3) -> str:
    """Return a length of time, as short as it may be said, or nothing."""
    if seconds is None:
        return ""
    if round(seconds, digits) < 60:
        return gettext("{}s").format(number(seconds, digits))
    minutes = round(seconds / 60)
    unit = gettext("{} min") if minutes < 120 else gettext("{} hours")
    return unit.format(number(minutes if minutes < 120 else minutes / 60))


def progress(
    processed: int, total: int | None, rate: float | None, seconds_left: float | None
) -> str:
    """Return how far a batched routine is, and how fast it goes."""
    parts = [number(processed)]
    if total is not None:
        text = gettext("{} of {} ({}%)") if total else gettext("{} of {}")
        share = number(100 * processed / (total or 1))
        parts = [text.format(number(processed), number(total), share)]
    if rate:
        parts.append(f"{number(rate)}/s")
    if seconds_left is not None:
        parts.append(gettext("{} left").format(duration(seconds_left, 0)))
    return ", ".join(parts)


def details(status: Status) -> list[str]:
    """Return what a line of a terminal says of a routine beside its state."""
    parts = []
    if status.state is RoutineState.RUNNING and status.started_at:
        parts.append(f"since {moment(status.started_at)} on {status.place}")
    elif status.state in _FAILED and status.started_at:
        parts.append(f"{moment(status.started_at)} on {status.place}")
    elif status.completed_at and status.state is not RoutineState.PENDING:
        parts.append(moment(status.completed_at))
        if without_body(status):
            parts.append(without_body(status))
        elif status.duration_seconds is not None and status.trigger != Trigger.ITEMS:
            parts.append(f"in {duration(status.duration_seconds)} on {status.host}")
    if status.database not in (None, DEFAULT_DB_ALIAS):
        parts.append(f"in {status.database}")
    if status.kind in ("batched", "external"):
        parts.append(status.kind)
    if status.role:
        parts.append(f"role {status.role}")
    if per(status):
        parts.append(per(status))
    if status.progress:
        parts.append(progress(*status.progress))
    if status.throttled:
        parts.append(f"waits: {status.throttled}")
    if status.set_by is not None and status.pace:
        values = [f"{name}={value:g}" for name, value in status.pace.items() if value is not None]
        parts.append(f"{' '.join(values)} set by {status.set_by or 'a person'}")
    if status.failed_items and status.state is not RoutineState.COMPLETED:  # whose message says it
        parts.append(f"({status.failed_items:,} items failed)")
    if status.has_other_version:
        parts.append(f"(v{status.recorded_version} is recorded)")
    if status.attempts > 1:
        parts.append(f"({status.attempts} attempts)")
    if status.retry_at is not None and status.state in (RoutineState.FAILED, RoutineState.PENDING):
        parts.append(f"(no server or worker tries again before {moment(status.retry_at)})")
    return parts


def per(status: Status) -> str:
    """Say what a completion holds for, unless that is the database, or a process; or nothing."""
    is_usual = status.scope in (None, "database", "process")
    return "" if is_usual else gettext("per {}").format(status.scope)


def without_body(status: Status) -> str:
    """Say how a routine is done whose body was not called; or nothing."""
    if status.trigger == Trigger.FOUND:
        return gettext("found done on {}").format(status.host)
    if status.trigger != Trigger.FAKE:
        return ""
    faked = gettext("faked by {}").format(status.user) if status.user else gettext("faked")
    return f"{faked}: {status.reason}" if status.reason else faked


def done_already(status: Status) -> str:
    """Say since when a routine is done, and how to have it run again."""
    if status.state is not RoutineState.COMPLETED:
        return f"{status.name}: {status.message or _superseded()}"
    when, place = moment(status.completed_at), f" on {status.host}" if status.host else ""
    how = f"{when}, {without_body(status).rstrip('.')}"
    if not without_body(status):
        how = f"completed {when}{place}"
    again = f"call `manage.py once reset {status.name}` first"
    if status.kind == "call":  # of which another version, release or state of files may be the last
        again = f"raise --version, or reset the last call: `manage.py once reset {status.name}`"
    failed = f" {status.message}" if status.failed_items else ""
    return f"{status.name} is done already: {how}.{failed} To have it run again, {again}."


def next_step(status: Status, *, runs_at_startup: bool) -> str:
    """Return what a person should know of a routine, and do next."""
    if status.message:
        return status.message
    if status.state is RoutineState.SUPERSEDED:
        return _superseded()
    if status.kind == "process":
        return gettext("In memory, once in each process: this is how it stands in this one.")
    if status.state not in (RoutineState.FAILED, RoutineState.PENDING):
        return ""
    if status.kind == "call":
        return gettext("Call it again by `manage.py once call`.")
    role = gettext(" with the role {}").format(status.role) if status.role else ""
    run = f"`manage.py once run{f' {status.name}' if role else ''}`"
    if not runs_at_startup:
        text = gettext("Only {run} runs it, or `manage.py once work`{role}.")
    elif status.retry_at is not None:
        text = gettext("Starting servers{role} try again from {time} on; {run} tries at once.")
    else:
        text = gettext("The next {run} or server start{role} runs it.")
    return text.format(run=run, role=role, time=moment(status.retry_at))


def _superseded() -> str:
    return gettext("A newer version is recorded, or was begun: this code never runs it.")


def facts(status: Status, registry: Registry) -> list[tuple[str, str]]:
    """Return facts of a routine for a person that looks at it alone, each with its label."""
    routine = next((each for each in registry if each.name == status.name), None)
    found = []
    if status.state is RoutineState.RUNNING:
        runs = gettext("on {} for {}") if status.elapsed_seconds else gettext("on {}")
        lasts = duration(status.elapsed_seconds, 0)
        found.append((gettext("Runs"), runs.format(status.place, lasts)))
    if routine is not None:
        found += [
            (gettext("Description"), _described(routine.function)),
            (gettext("Source"), _source(routine.function)),
            (gettext("After"), ", ".join(each.name for each in registry.predecessors(routine))),
            (gettext("Pace"), pace(status, routine)),
            (gettext("Throttle"), ", ".join(_name(each) for each in routine.throttle)),
        ]
    return [(label, fact) for label, fact in found if fact]


def pace(status: Status, routine: Routine) -> str:
    """Return the pace of a batched routine that holds now, and where each value comes from."""
    declared = wishes.pace(routine, None)
    parts = []
    for option, value in (status.pace or {}).items():
        if value == getattr(declared, option):
            origin = gettext("in the code")
        elif status.set_by:
            origin = gettext("set by {}").format(status.set_by)
        else:
            origin = gettext("set")
        if value is not None or value != getattr(declared, option):
            shown = gettext("none") if value is None else f"{value:g}"
            parts.append(f"{option}={shown} ({origin})")
    return ", ".join(parts)


def _described(function: Callable[..., Any]) -> str:
    """Return the first paragraph of a function's docstring."""
    plain = inspect.unwrap(function)
    doc = inspect.getdoc(plain) if inspect.isfunction(plain) else ""
    return " ".join((doc or "").partition("\n\n")[0].split())


def _source(function: Callable[..., Any]) -> str:
    """Return the module of a function, and its line there where it has one."""
    plain = inspect.unwrap(function)
    code = getattr(plain, "__code__", None)
    module = getattr(plain, "__module__", "") or ""
    return gettext("{}, line {}").format(module, code.co_firstlineno) if code else module


def _name(throttle: Callable[..., Any]) -> str:
    return str(getattr(throttle, "__name__", throttle))
