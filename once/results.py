"""What a call did about a routine."""

import enum
from dataclasses import dataclass
from functools import cache

from once.base import Routine
from once.models import Attempt

__all__ = ["Outcome", "Result", "already_done"]


class Outcome(enum.StrEnum):
    """What a call did, in one word."""

    RAN = "ran"
    WAITED = "waited"
    ALREADY_DONE = "already_done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a call did about one routine."""

    routine: Routine
    outcome: Outcome
    #: What happened and what to do next, where there is something to say.
    message: str = ""
    #: The attempt that this process made.
    attempt: Attempt | None = None
    #: How long the attempt, or the wait, took.
    seconds: float = 0.0
    #: Skipped because the deadline passed.
    timed_out: bool = False
    #: Skipped because a person must decide whether it is tried again.
    is_held: bool = False
    #: Skipped because it failed or was lost lately: seconds until starting servers try again.
    retry_in: float = 0.0
    #: Left to a newer version, which was begun and is not done: nothing to build on.
    is_overtaken: bool = False
    #: Failed now, or lately and was skipped for that.
    has_failed: bool = False
    #: Failed in a way that no other attempt of the same call may follow.
    is_final: bool = False
    #: Why it failed.
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether the effects exist."""
        return self.outcome in (Outcome.RAN, Outcome.WAITED, Outcome.ALREADY_DONE)


@cache
def already_done(routine: Routine) -> Result:
    """The result for a routine that is done, the same value each time: there may be thousands."""
    return Result(routine=routine, outcome=Outcome.ALREADY_DONE)
