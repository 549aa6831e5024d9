"""Decisions of a person: to run a routine again, or to record it as done.

For the command and the admin alike.
"""

from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS

from once.engine import executor
from once.engine.options import RunOptions
from once.models import Trigger
from once.results import Result
from once.routines.registry import Registry
from once.status.called import Called
from once.status.state import RoutineState, Status

__all__ = ["Refusal", "carry_out", "refusal"]

_VERBS = {Trigger.RESET: "Reset", Trigger.FAKE: "Record"}

#: Exit codes of the command: the routine stands so anyway; it never can; it cannot now.
_NEEDLESS, _NEVER, _NOT_NOW = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a decision is not carried out, and what to do instead."""

    exit_code: int
    message: str


def refusal(decision: Trigger, status: Status) -> Refusal | None:
    """Return why a decision cannot be carried out as a routine stands, or nothing."""
    name, state = status.name, status.state
    if status.kind == "process":
        return Refusal(_NEVER, f"{name} keeps no record (process scope): restart the process.")
    if status.renamed_to:
        return Refusal(
            _NEVER,
            f"{name} has the name {status.renamed_to} in another release of the code. "
            f"{_VERBS[decision]} it with that release, by that name.",
        )
    if state in (RoutineState.SUPERSEDED, RoutineState.UNKNOWN):
        return Refusal(
            _NEVER,
            f"{name} is {state}: another release of the code knows more of it. "
            + (status.message or f"{_VERBS[decision]} it with that release."),
        )
    if state is RoutineState.RUNNING:
        message = f"{name} is run now on {status.place}. End that process, or wait."
        return Refusal(_NOT_NOW, message)
    if decision is Trigger.RESET:
        if state in (RoutineState.PENDING, RoutineState.PAUSED, RoutineState.BLOCKED):
            message = f"{name} is {state}, so not done: nothing to reset."
            return Refusal(_NEEDLESS, message)
        return None
    if state is RoutineState.COMPLETED and not status.failed_items:
        return Refusal(_NEEDLESS, f"{name} is completed: nothing to record.")
    if status.kind == "call":
        return Refusal(
            _NEVER,
            f"{name} is a command that `manage.py once call` ran: this code does not have it.",
        )
    if state is RoutineState.BLOCKED:
        return Refusal(_NOT_NOW, f"{name} is blocked. {status.message or ''}".rstrip())
    return None


def carry_out(
    decision: Trigger, status: Status, registry: Registry, *, user: str, reason: str
) -> Result:
    """Do what was decided about a routine that stood so.

    Raises:
        DatabaseUnavailable: its database was out of reach for too long.
        InsideTransaction: the calling thread is inside a transaction.
        ImproperlyConfigured: its scope lacks ``ONCE_RELEASE``, or a file.

    """
    options = RunOptions(
        trigger=decision,
        # Because no person saw it completed, a routine that was completed meanwhile stays so.
        even_done=decision is Trigger.RESET and status.state is RoutineState.COMPLETED,
        wait=False,
        user=user,
        reason=reason,
    )
    routine = next((each for each in registry.recorded if each.name == status.name), None)
    [result] = executor.run([routine or _called(status)], registry, options)
    return result


def _called(status: Status) -> Called:
    """Return what stands for a command that ``once call`` ran."""
    return Called(
        name=status.name,
        version=status.version or 1,
        using=status.database or DEFAULT_DB_ALIAS,
        recorded_key=status.scope_key or "",
    )
