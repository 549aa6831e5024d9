"""Decisions of a person: run it again, record it as done; pause, resume, set its pace; run now.

For the command and the admin alike.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS

from once.databases import database
from once.engine import executor
from once.engine.options import RunOptions
from once.models import Trigger, Wish
from once.record import gates, wishes, workers
from once.results import Result
from once.routines.registry import Registry
from once.status.called import Called
from once.status.state import RoutineState, Status
from once.words import gettext

#: A reset or a record as done, which make an attempt; or a wish, which attempts read.
Decision = Trigger | Wish.Kind

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
        message = gettext("{} keeps no record (process scope): restart the process.")
        return Refusal(_NEVER, message.format(name))
    if status.renamed_to:
        message = gettext(
            "{} has the name {} in another release of the code. Decide with that release, by that "
            "name."
        )
        return Refusal(_NEVER, message.format(name, status.renamed_to))
    if isinstance(decision, Wish.Kind):
        return _wish_refusal(decision, status)
    if state in (RoutineState.SUPERSEDED, RoutineState.UNKNOWN):
        message = gettext("{} is {}: another release of the code knows more of it.")
        then = status.message or gettext("Decide with that release.")
        return Refusal(_NEVER, f"{message.format(name, gettext(state))} {then}")
    if state is RoutineState.RUNNING:
        message = gettext("{} is run now on {}. End that process, or wait.")
        return Refusal(_NOT_NOW, message.format(name, status.place))
    if decision is Trigger.RESET:
        if state in (RoutineState.PENDING, RoutineState.PAUSED, RoutineState.BLOCKED):
            message = gettext("{} is {}, so not done: nothing to reset.")
            return Refusal(_NEEDLESS, message.format(name, gettext(state)))
        return None
    if state is RoutineState.COMPLETED and not status.failed_items:
        return Refusal(_NEEDLESS, gettext("{} is completed: nothing to record.").format(name))
    if status.kind == "call":
        message = gettext(
            "{} is a command that `manage.py once call` ran: this code does not have it."
        )
        return Refusal(_NEVER, message.format(name))
    if state is RoutineState.BLOCKED:
        message = gettext("{} is blocked.").format(name)
        return Refusal(_NOT_NOW, f"{message} {status.message or ''}".rstrip())
    return None


def _wish_refusal(kind: Wish.Kind, status: Status) -> Refusal | None:
    name, state = status.name, status.state
    if status.kind == "call":
        message = gettext("{} is a command of `manage.py once call`, and no routine.")
        return Refusal(_NEVER, message.format(name))
    if state is RoutineState.UNKNOWN:
        message = gettext("{} is not in this code. Call a release that has it.")
        return Refusal(_NEVER, message.format(name))
    if kind == Wish.Kind.RUN:
        return _run_refusal(status)
    if kind == Wish.Kind.PAUSE and status.paused:
        return Refusal(_NEEDLESS, gettext("{} is paused already.").format(name))
    if kind == Wish.Kind.RESUME and not (status.paused or status.old_names):
        return Refusal(_NEEDLESS, gettext("{} is not paused.").format(name))
    if kind == Wish.Kind.PAUSE and state in (RoutineState.COMPLETED, RoutineState.SUPERSEDED):
        message = gettext("{} is {}: there is nothing to pause.")
        return Refusal(_NEEDLESS, message.format(name, gettext(state)))
    if kind == Wish.Kind.SET and state is RoutineState.SUPERSEDED:
        message = gettext("{} is superseded: set the pace by the release that runs it.")
        return Refusal(_NEVER, message.format(name))
    if kind == Wish.Kind.SET and status.kind != "batched":
        message = gettext("{} has no batches, and so no pace: it is {}.")
        return Refusal(_NEVER, message.format(name, status.kind))
    return None


def _run_refusal(status: Status) -> Refusal | None:
    """Return why a routine cannot be run now, or why no person is needed for that."""
    name, state = status.name, status.state
    why = {
        RoutineState.RUNNING: gettext("{0} is run now on {1}. Wait for its end."),
        RoutineState.HELD: gettext("{0} is held. Reset it first: `manage.py once reset {0}`."),
        RoutineState.PAUSED: gettext(
            "{0} is paused. Resume it first: `manage.py once resume {0}`."
        ),
        RoutineState.SUPERSEDED: gettext("{0} is superseded: another release runs it."),
    }.get(state, "")
    if state is RoutineState.COMPLETED and not status.failed_items:
        why = gettext(
            "{0} is completed. To have it run again, reset it: `manage.py once reset {0}`."
        )
    if state is RoutineState.BLOCKED or status.waits_for:
        why = gettext("{0} is {2}. {3}")
    if why:
        told = why.format(name, status.place, gettext(state), status.message or "")
        return Refusal(_NOT_NOW, told.rstrip())
    if status.wanted:
        return Refusal(_NEEDLESS, gettext("{} is to run now already.").format(name))
    if not status.has_worker:
        message = gettext(
            "No `manage.py once work`{role} has looked for work within {seconds} s: none runs, or "
            "each is busy. Start one, or call `manage.py once run{option} {name}`."
        )
        role = gettext(" with the role {}").format(status.role) if status.role else ""
        option = " --failed-items" if state is RoutineState.COMPLETED else ""
        told = message.format(role=role, seconds=workers.SECONDS, option=option, name=name)
        return Refusal(_NOT_NOW, told)
    if state is not RoutineState.COMPLETED and status.retry_at is None:
        message = gettext("{} is {}: `manage.py once work` takes it up by itself.")
        return Refusal(_NEEDLESS, message.format(name, gettext(state)))
    return None


def passed(listed: Collection[Status]) -> list[str]:
    """Return the names of those routines that a migration needed which is applied.

    Raises:
        django.db.Error: a database cannot be used.

    """
    found = []
    for using in {str(each.database) for each in listed}:
        with database(using).reading():
            needed = gates.passed(using)
        found += [each.name for each in listed if each.database == using and each.name in needed]
    return found


def refuse_passed(names: Sequence[str]) -> str:
    """Say that such routines are not reset, because their bodies may not fit the schema."""
    return gettext(
        "A migration that is applied needed {0}, and what came with it may not fit the body any "
        "more. To have it run again all the same: `manage.py once reset --force {1}`."
    ).format(", ".join(names), " ".join(names))


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
        # Because a process of an older release may run it, which reads no other name.
        # But a pace is for a version, and that of the older release may be another.
        is_about_pause = kind in (Wish.Kind.PAUSE, Wish.Kind.RESUME)
        names = (name, *(status.old_names if is_about_pause else ()))
        made = [
            wishes.add(using, each, kind, version=version, user=user, reason=reason, **values)
            for each in names
        ]
    if not any(made):
        already = {
            Wish.Kind.PAUSE: gettext("{} is paused already."),
            Wish.Kind.RUN: gettext("{} is to run now already."),
        }.get(kind, gettext("{} is not paused."))
        return already.format(name), False
    return _consequence(kind, status, values), True


def _consequence(kind: Wish.Kind, status: Status, values: dict[str, float | None]) -> str:
    name, is_running = status.name, status.state is RoutineState.RUNNING
    if kind == Wish.Kind.PAUSE:
        if status.old_names:
            return gettext(
                "{} is paused, also under its old name {}: a process of an older release stops "
                "after its body, or the batch in hand."
            ).format(name, ", ".join(status.old_names))
        if not is_running:
            return gettext(
                "{0} is paused: no process takes it up until `manage.py once resume {0}`."
            ).format(name)
        stops = gettext("{} is paused: it stops on {} after its body, and so may be done.")
        if status.kind == "batched":
            stops = gettext("{} is paused: it stops on {} after the batch in hand.")
        return stops.format(name, status.place)
    if kind == Wish.Kind.RESUME:
        return gettext(
            "{} is resumed: the next `manage.py once run` takes it up, and so do processes that "
            "look for work (`once work`, and servers that run it)."
        ).format(name)
    if kind == Wish.Kind.RUN:
        told = gettext("{} is to run now: `manage.py once work` takes it at its next look.")
        return told.format(name)
    declared = gettext("as declared")
    pace = ", ".join(
        f"{option}={declared if value is None else f'{value:g}'}"
        for option, value in values.items()
    )
    has = gettext("{} has {}, as soon as it runs. It ends with version {}.")
    if is_running:
        has = gettext("{} has {}, from the next batch on. It ends with version {}.")
    return has.format(name, pace, status.version)
