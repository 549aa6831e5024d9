"""What a person decides about routines: to run one again, or to record one as done.

For the command and the admin alike.
"""

import enum
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS

from once import runner
from once.base import Routine
from once.models import Trigger
from once.registry import Registry
from once.results import Result
from once.runner import Act
from once.status import RoutineState, Status

__all__ = ["Decision", "Refusal", "Why", "called", "carry_out", "refusal"]


class Decision(enum.StrEnum):
    """What is decided."""

    #: Make it pending again.
    RESET = "reset"
    #: Record it as done without calling its body.
    FAKE = "fake"


class Why(enum.Enum):
    """Why nothing comes of a decision."""

    #: It keeps no record.
    UNRECORDED = enum.auto()
    #: This code does not know enough of it.
    FOREIGN = enum.auto()
    #: Another process runs it, or migrations must come before.
    NOT_NOW = enum.auto()
    #: It stands so anyway.
    NEEDLESS = enum.auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a decision about a routine is not carried out, and what to do instead."""

    why: Why
    message: str


def refusal(decision: Decision, one: Status) -> Refusal | None:
    """Why a decision cannot be carried out as a routine stands, or nothing."""
    if one.kind == "process":
        return Refusal(
            Why.UNRECORDED, f"{one.name} keeps no record (process scope): restart the process."
        )
    if one.state in (RoutineState.SUPERSEDED, RoutineState.UNKNOWN):
        return Refusal(
            Why.FOREIGN,
            f"{one.name} is {one.state}: another release of the code knows more of it. "
            f"{_VERBS[decision]} it with that release.",
        )
    if one.state is RoutineState.RUNNING:
        return Refusal(
            Why.NOT_NOW,
            f"{one.name} is run now on {one.host} (pid {one.pid}). End that process, or wait.",
        )
    return _refused_reset(one) if decision is Decision.RESET else _refused_fake(one)


def carry_out(
    decision: Decision, one: Status, registry: Registry, *, user: str, reason: str
) -> Result:
    """Do what was decided about a routine that stood so.

    Raises:
        DatabaseUnavailable: its database was out of reach for too long.
        InsideTransaction: the calling thread is inside a transaction.
        ImproperlyConfigured: its scope lacks ``ONCE_RELEASE``, or a file.

    """
    if decision is Decision.FAKE:
        act, trigger = Act.FAKE, Trigger.FAKE
    else:
        # What nobody saw completed is not reset where it was completed meanwhile.
        is_done = one.state is RoutineState.COMPLETED
        act, trigger = Act.RESET if is_done else Act.RETRY, Trigger.RESET
    by_name = {routine.name: routine for routine in registry.recorded}
    [result] = runner.run(
        [by_name.get(one.name) or called(one)],
        registry=registry,
        trigger=trigger,
        act=act,
        wait=False,
        user=user,
        reason=reason,
    )
    return result


def called(one: Status) -> Routine:
    """What stands for a command that ``once call`` ran."""
    return Routine(
        function=lambda: None,
        name=one.name,
        version=one.version or 1,
        using=one.database or DEFAULT_DB_ALIAS,
    )


_VERBS = {Decision.RESET: "Reset", Decision.FAKE: "Record"}


def _refused_reset(one: Status) -> Refusal | None:
    if one.state in (RoutineState.PENDING, RoutineState.BLOCKED):
        message = f"{one.name} is {one.state}, so not done: nothing to reset."
        return Refusal(Why.NEEDLESS, message)
    return None


def _refused_fake(one: Status) -> Refusal | None:
    if one.state is RoutineState.COMPLETED:
        return Refusal(Why.NEEDLESS, f"{one.name} is completed: nothing to record.")
    if one.kind == "call":
        return Refusal(
            Why.FOREIGN,
            f"{one.name} is a command that `manage.py once call` ran: this code does not have it.",
        )
    if one.state is RoutineState.BLOCKED:
        return Refusal(Why.NOT_NOW, f"{one.name} is blocked. {one.message or ''}".rstrip())
    return None
