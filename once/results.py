"""The result of a call for a routine."""

import enum
from dataclasses import dataclass
from functools import cache
from typing import Any

from once.models import Attempt
from once.routines.base import Routine


class Outcome(enum.StrEnum):
    """The outcome of a call, in one word."""

    RAN = "ran"
    #: Recorded without a call of its body: found done, or a person decided.
    RECORDED = "recorded"
    WAITED = "waited"
    ALREADY_DONE = "already_done"
    SKIPPED = "skipped"
    FAILED = "failed"


class Reason(enum.StrEnum):
    """The reason of an outcome, if the outcome leaves it open."""

    #: The routine failed: now, or lately, so that starting servers leave it out.
    FAILED = "failed"
    #: The database, and not the routine, kept the attempt from its end.
    HINDERED = "hindered"
    #: A person must decide whether it is tried again.
    HELD = "held"
    #: A person paused it, until a person resumes it.
    PAUSED = "paused"
    #: The deadline passed.
    TIMED_OUT = "timed_out"
    #: Left to a newer version or value, which was begun and is not done: nothing to build on.
    OVERTAKEN = "overtaken"
    #: Left alone, since the value of its state is an earlier one.
    EARLIER = "earlier"
    #: Left to a process of another role, or behind a routine that is.
    OTHER_ROLE = "other_role"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a call for one routine."""

    routine: Routine
    outcome: Outcome
    #: A sentence that says what happened and what to do next, or nothing.
    message: str = ""
    #: The attempt that this process made.
    attempt: Attempt | None = None
    #: Seconds that the attempt, or the wait, took.
    seconds: float = 0.0
    #: The reason, if the outcome leaves it open.
    reason: Reason | None = None
    #: Skipped because it failed or was lost lately: seconds until starting servers try again.
    retry_in: float = 0.0
    #: Failed in a way that no other attempt of the same call may follow.
    is_final: bool = False
    #: The error of a failure.
    error: BaseException | None = None

    @property
    def is_for_a_person(self) -> bool:
        """True if a person has to decide before it is tried."""
        return self.reason in (Reason.HELD, Reason.PAUSED)

    @property
    def is_done(self) -> bool:
        """True if the effects exist."""
        return self.outcome in (Outcome.RAN, Outcome.RECORDED, Outcome.WAITED, Outcome.ALREADY_DONE)


@cache
def already_done(routine: Routine) -> Result:
    """Return the result of a done routine: the same value each time, to be cheap for thousands."""
    return Result(routine=routine, outcome=Outcome.ALREADY_DONE)


def skipped(routine: Routine, message: str, **details: Any) -> Result:
    """Return the result of a routine that was not tried."""
    return Result(routine=routine, outcome=Outcome.SKIPPED, message=message, **details)
