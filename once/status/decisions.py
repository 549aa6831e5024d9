"""Decisions of a person: run it again, record it as done; pause, resume, set its pace; run now.

For the command and the admin alike.
"""

from dataclasses import dataclass, replace
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from once.databases import database
from once.engine import executor
from once.engine.options import RunOptions
from once.exceptions import RoutineError
from once.models import Trigger, Wish
from once.record import wishes, workers
from once.results import Result
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status.called import Called
from once.status.state import RoutineState, Status

#: A reset or a record as done, which make an attempt; or a wish, which attempts read.
Decision = Trigger | Wish.Kind

_VERBS: dict[Decision, str] = {
    Trigger.RESET: "Reset",
    Trigger.FAKE: "Record",
    Wish.Kind.PAUSE: "Pause",
    Wish.Kind.RESUME: "Resume",
    Wish.Kind.SET: "Set",
    Wish.Kind.RUN: "Run",
}

#: Exit codes of the command: the routine stands so anyway; it never can; it cannot now.
_NEEDLESS, _NEVER, _NOT_NOW = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a decision is not carried out, and what to do instead."""

    exit_code: int
    message: str


def refusal(decision: Decision, status: Status) -> Refusal | None:
    """Return why a decision cannot be carried out as a routine stands, or ``None``."""
    name, state = status.name, status.state
    if status.kind == "process":
        return Refusal(_NEVER, f"{name} keeps no record (process scope): restart the process.")
    if status.renamed_to:
        return Refusal(
            _NEVER,
            f"{name} has the name {status.renamed_to} in another release of the code. "
            f"{_VERBS[decision]} it with that release, by that name.",
        )
    if isinstance(decision, Wish.Kind):
        return _wish_refusal(decision, status)
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


def _wish_refusal(kind: Wish.Kind, status: Status) -> Refusal | None:
    name, state = status.name, status.state
    if status.kind == "call":
        return Refusal(_NEVER, f"{name} is a command of `manage.py once call`, and no routine.")
    if state is RoutineState.UNKNOWN:
        return Refusal(_NEVER, f"{name} is not in this code. Call a release that has it.")
    if kind == Wish.Kind.RUN:
        return _run_refusal(status)
    if kind == Wish.Kind.PAUSE and state is RoutineState.PAUSED:
        return Refusal(_NEEDLESS, f"{name} is paused already.")
    if kind == Wish.Kind.PAUSE and state in (RoutineState.COMPLETED, RoutineState.SUPERSEDED):
        return Refusal(_NEEDLESS, f"{name} is {state}: there is nothing to pause.")
    if kind == Wish.Kind.SET and state is RoutineState.SUPERSEDED:
        return Refusal(_NEVER, f"{name} is superseded: set the pace by the release that runs it.")
    if kind == Wish.Kind.SET and status.kind != "batched":
        return Refusal(_NEVER, f"{name} has no batches, and so no pace: it is {status.kind}.")
    return None


def _run_refusal(status: Status) -> Refusal | None:
    """Return why a routine cannot be run now, or why no person is needed for that."""
    name, state = status.name, status.state
    why = {
        RoutineState.RUNNING: f"is run now on {status.place}. Wait for its end.",
        RoutineState.HELD: f"is held. Reset it first: `manage.py once reset {name}`.",
        RoutineState.PAUSED: f"is paused. Resume it first: `manage.py once resume {name}`.",
        RoutineState.BLOCKED: f"is blocked. {status.message}",
        RoutineState.SUPERSEDED: "is superseded: another release runs it.",
    }.get(state, "")
    if state is RoutineState.COMPLETED and not status.failed_items:
        why = f"is completed. To have it run again, reset it: `manage.py once reset {name}`."
    if why or status.waits_for:
        return Refusal(_NOT_NOW, f"{name} {why or f'is {state}. {status.message}'}")
    if status.wanted:
        return Refusal(_NEEDLESS, f"{name} is to run now already.")
    if not status.has_worker:
        role = f" with the role {status.role}" if status.role else ""
        option = " --failed-items" if state is RoutineState.COMPLETED else ""
        return Refusal(
            _NOT_NOW,
            f"No `manage.py once work`{role} has looked for work within {workers.SECONDS} s: none "
            f"runs, or each is busy. Start one, or call `manage.py once run{option} {name}`.",
        )
    if state is not RoutineState.COMPLETED and status.retry_at is None:
        message = f"{name} is {state}: `manage.py once work` takes it up by itself."
        return Refusal(_NEEDLESS, message)
    return None


def carry_out(
    decision: Trigger, status: Status, registry: Registry, *, user: str, reason: str
) -> Result:
    """Reset a routine that stood so, or record it as done.

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


def value_error(routine: Routine, values: dict[str, Any]) -> str:
    """Return why a routine cannot have these values, or nothing."""
    given = {name: value for name, value in values.items() if value is not None}
    try:
        replace(routine, **given)
    except RoutineError as error:
        return str(error)
    return ""


def record_wish(
    kind: Wish.Kind,
    status: Status,
    *,
    user: str,
    reason: str,
    values: dict[str, float | None],
) -> tuple[str, bool]:
    """Pause a routine that stood so, resume it, set its pace, or have it run now.

    Args:
        kind: pause, resume, set or run.
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
        wish = wishes.add(using, name, kind, version=version, user=user, reason=reason, **values)
    if wish is None:
        no = {Wish.Kind.PAUSE: "paused already", Wish.Kind.RUN: "to run now already"}
        return f"{name} is {no.get(kind, 'not paused')}.", False
    return _consequence(kind, status, values), True


def _consequence(kind: Wish.Kind, status: Status, values: dict[str, float | None]) -> str:
    name, is_running = status.name, status.state is RoutineState.RUNNING
    if kind == Wish.Kind.PAUSE:
        if not is_running:
            return f"{name} is paused: no process takes it up until `manage.py once resume {name}`."
        until = "the batch in hand" if status.kind == "batched" else "its body, and so may be done"
        return f"{name} is paused: it stops on {status.place} after {until}."
    if kind == Wish.Kind.RESUME:
        return (
            f"{name} is resumed: the next `manage.py once run` takes it up, and so do processes "
            "that look for work (`once work`, and servers that run it)."
        )
    if kind == Wish.Kind.RUN:
        return f"{name} is to run now: `manage.py once work` takes it at its next look."
    pace = ", ".join(
        f"{option}={'as declared' if value is None else f'{value:g}'}"
        for option, value in values.items()
    )
    when = "from the next batch on" if is_running else "as soon as it runs"
    return f"{name} has {pace}, {when}. It ends with version {status.version}."
