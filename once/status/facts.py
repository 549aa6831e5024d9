"""Facts of one routine beside its state: what the code says of it, its pace, and the process."""

import inspect
from collections.abc import Callable
from typing import Any

from once.record import wishes
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status import text
from once.status.state import RoutineState, Status
from once.words import gettext


def facts(status: Status, registry: Registry) -> list[tuple[str, str]]:
    """Return facts of a routine for a person that looks at it alone, each with its label."""
    routine = next((each for each in registry if each.name == status.name), None)
    found = []
    if status.state is RoutineState.RUNNING:
        runs = gettext("on {} for {}") if status.elapsed_seconds else gettext("on {}")
        lasts = text.duration(status.elapsed_seconds, 0)
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
