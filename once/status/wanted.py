"""Wishes of a person for a routine while it runs: a pause, its end, another pace.

For the command and the admin alike.
"""

from dataclasses import replace
from typing import Any

from once.databases import database
from once.exceptions import RoutineError
from once.models import Wish
from once.record import wishes
from once.routines.base import Routine
from once.status.decisions import Refusal
from once.status.state import RoutineState, Status

__all__ = ["carry_out", "refusal", "value_error"]

#: Exit codes of the command: the routine stands so anyway; it never can.
_NEEDLESS, _NEVER = 0, 2


def refusal(kind: Wish.Kind, status: Status) -> Refusal | None:
    """Return the reason that forbids a wish for a routine as it stands, or ``None``."""
    name, state = status.name, status.state
    if status.kind == "process":
        return Refusal(_NEVER, f"{name} runs in memory, as each process starts: there is no wait.")
    if status.renamed_to:
        return Refusal(_NEVER, f"{name} has the name {status.renamed_to} in another release.")
    if status.kind == "call":
        return Refusal(_NEVER, f"{name} is a command of `manage.py once call`, and no routine.")
    if state is RoutineState.UNKNOWN:
        return Refusal(_NEVER, f"{name} is not in this code. Call a release that has it.")
    is_paused = state is RoutineState.PAUSED
    if is_paused and kind == Wish.Kind.PAUSE:
        return Refusal(_NEEDLESS, f"{name} is paused already.")
    if kind == Wish.Kind.PAUSE and state in (RoutineState.COMPLETED, RoutineState.SUPERSEDED):
        return Refusal(_NEEDLESS, f"{name} is {state}: there is nothing to pause.")
    if kind == Wish.Kind.SET and state is RoutineState.SUPERSEDED:
        return Refusal(_NEVER, f"{name} is superseded: set the pace by the release that runs it.")
    if kind == Wish.Kind.SET and status.kind != "batched":
        return Refusal(_NEVER, f"{name} has no batches, and so no pace: it is {status.kind}.")
    return None


def value_error(routine: Routine, values: dict[str, Any]) -> str:
    """Return why a routine cannot have these values, or nothing."""
    given = {name: value for name, value in values.items() if value is not None}
    try:
        replace(routine, **given)
    except RoutineError as error:
        return str(error)
    return ""


def carry_out(
    kind: Wish.Kind,
    status: Status,
    *,
    user: str,
    reason: str,
    values: dict[str, float | None] | None = None,
) -> tuple[str, bool]:
    """Record a wish of a person for a routine that stood so.

    Args:
        kind: pause, resume or set.
        status: the routine.
        user: the person.
        reason: why.
        values: what is set, by option; ``None`` for what the code declares.

    Returns:
        What follows from it, and whether it was recorded: ``False`` if it was so already.

    Raises:
        django.db.Error: its database cannot be used.

    """
    name, using = status.name, str(status.database)
    version = status.version or 0 if kind == Wish.Kind.SET else 0
    with database(using).reading():
        wish = wishes.add(
            using, name, kind, version=version, user=user, reason=reason, **values or {}
        )
    return _told(kind, status, values or {}, is_made=wish is not None), wish is not None


def _told(
    kind: Wish.Kind, status: Status, values: dict[str, float | None], *, is_made: bool
) -> str:
    name, is_running = status.name, status.state is RoutineState.RUNNING
    if kind == Wish.Kind.PAUSE:
        if not is_made:
            return f"{name} is paused already."
        if not is_running:
            return f"{name} is paused: no process takes it up until `manage.py once resume {name}`."
        until = "the batch in hand" if status.kind == "batched" else "its body, and so may be done"
        return f"{name} is paused: it stops on {status.place} after {until}."
    if kind == Wish.Kind.RESUME:
        if not is_made:
            return f"{name} is not paused."
        return (
            f"{name} is resumed: the next `manage.py once run` takes it up, and so do processes "
            "that look for work (`once work`, and servers that run it)."
        )
    pace = ", ".join(f"{option}={_shown(value)}" for option, value in values.items())
    when = "from the next batch on" if is_running else "as soon as it runs"
    return f"{name} has {pace}, {when}. It ends with version {status.version}."


def _shown(value: float | None) -> str:
    return "as declared" if value is None else f"{value:g}"
