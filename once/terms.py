"""What a caller wants done about routines, and how."""

import enum
from dataclasses import dataclass

from once.record import Standing

__all__ = ["Act", "Terms"]


class Act(enum.Enum):
    """What is done about a routine."""

    RUN = "run", Standing.OPEN
    #: Record it without calling its body.
    FAKE = "fake", Standing.OPEN, Standing.HELD
    #: Make it pending again where it is not done: failed, or held.
    RETRY = "retry", Standing.OPEN, Standing.HELD
    #: Make it pending again, done or not.
    RESET = "reset", Standing.OPEN, Standing.HELD, Standing.DONE

    def __init__(self, name: str, *due: Standing) -> None:
        #: How routines stand for which there is something to do.
        self.due = due

    def is_due(self, standing: Standing) -> bool:
        """Whether there is something to do for a routine that stands so."""
        return standing in self.due


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a caller wants of every routine."""

    act: Act = Act.RUN
    #: What called, for the history.
    trigger: str
    #: Whether to wait for another process.
    is_patient: bool = True
    #: Whether a body may be called again by this call, where another transaction was in the way.
    repeats: bool = True
    #: Whether to leave out what failed lately.
    heeds_delay: bool = False
    #: Who decided, and why, where a person did.
    user: str = ""
    reason: str = ""
