"""Facts of one routine beside its state: what the code says of it, its pace, and the process."""

import inspect
from collections.abc import Callable
from typing import Any

from once.record import wishes
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status import text
from once.status.state import RoutineState, Status

__all__ = ["facts"]


def facts(status: Status, registry: Registry) -> list[tuple[str, str]]:
    """Return facts of a routine for a person that looks at it alone, each with its label."""
    routine = next((each for each in registry if each.name == status.name), None)
    found = []
    if status.state is RoutineState.RUNNING:
        lasts = f" for {text.duration(status.elapsed_seconds, 0)}" if status.elapsed_seconds else ""
        found.append(("Runs", f"on {status.place}{lasts}"))
    if routine is not None:
        found += [
            ("Description", _described(routine.function)),
            ("Source", _source(routine.function)),
            ("After", ", ".join(each.name for each in registry.predecessors(routine))),
            ("Pace", pace(status, routine)),
            ("Throttle", ", ".join(_name(each) for each in routine.throttle)),
        ]
    return [(label, fact) for label, fact in found if fact]


def pace(status: Status, routine: Routine) -> str:
    """Return the pace of a batched routine that holds now, and where each value comes from."""
    declared = wishes.pace(routine, None)
    parts = []
    for option, value in (status.pace or {}).items():
        if value == getattr(declared, option):
            origin = "in the code"
        else:
            origin = f"set by {status.set_by}" if status.set_by else "set"
        if value is not None or origin != "in the code":
            shown = "none" if value is None else f"{value:g}"
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
    return f"{module}, line {code.co_firstlineno}" if code else module


def _name(throttle: Callable[..., Any]) -> str:
    return str(getattr(throttle, "__name__", throttle))
