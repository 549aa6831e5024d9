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
    """Return why a wish cannot be for a routine as it stands, or nothing."""
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
) -> str:
    """Record what a person wants of a routine that stood so; return what follows from it.

    Args:
        kind: pause, resume or set.
        status: the routine.
        user: the person.
        reason: why.
        values: what is set, by option; ``None`` for what the code declares.

    Raises:
        django.db.Error: its database cannot be used.

    """
    name, using = status.name, str(status.database)
    version = status.version or 0 if kind == Wish.Kind.SET else 0
    with database(using).reading():
        wish = wishes.add(
            using, name, kind, version=version, user=user, reason=reason, **values or {}
        )
    is_running = status.state is RoutineState.RUNNING
    if kind == Wish.Kind.PAUSE:
        if wish is None:
            return f"{name} is paused already."
        if not is_running:
            return f"{name} is paused: no process takes it up until `manage.py once resume {name}`."
        until = "the batch in hand" if status.kind == "batched" else "its body, and so may be done"
        return f"{name} is paused: it stops on {status.place} after {until}."
    if kind == Wish.Kind.RESUME:
        if wish is None:
            return f"{name} is not paused."
        return f"{name} is resumed: the next `manage.py once run` or server start takes it up."
    pace = ", ".join(f"{option}={_shown(value)}" for option, value in (values or {}).items())
    until = f"It ends with version {version}."
    when = "from the next batch on" if is_running else "as soon as it runs"
    return f"{name} has {pace}, {when}. {until}"


def _shown(value: float | None) -> str:
    return "as declared" if value is None else f"{value:g}"
