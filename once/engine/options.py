"""Options of a run."""

from dataclasses import dataclass

from once.models import DECISIONS, Trigger
from once.record.standing import Standing
from once.routines.base import Routine


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options that hold for every routine of a run."""

    #: The caller, for the history: a :class:`once.models.Trigger`. ``FAKE`` records routines as
    #: done. ``RESET`` makes them pending again, without calling their bodies or heeding ``after``.
    trigger: str
    #: True if a reset is for a routine that is done, too.
    even_done: bool = False
    #: True if a routine with an earlier value is reset, and then run or recorded like any other.
    reverts: bool = False
    #: The routine that a migration waits for, to which the unapplied ones are no obstacle.
    needed: Routine | None = None
    #: True if the call waits for a routine that another process runs.
    wait: bool = True
    #: Seconds after which the call stops waiting; none by default.
    timeout: float | None = None
    #: True if the call goes on, after a routine that failed, with routines not behind it.
    keep_going: bool = False
    #: True if a routine that failed lately is left out, by ``ONCE_RETRY_DELAY``, unless wanted.
    respects_backoff: bool = False
    #: The role of this process, which leaves routines of another role alone; ``None`` takes all.
    role: str | None = None
    #: The person that decided, and the reason.
    user: str = ""
    reason: str = ""

    @property
    def calls_body(self) -> bool:
        """True if bodies are called: a person's decision calls none."""
        return self.trigger not in DECISIONS

    @property
    def is_thorough(self) -> bool:
        """True if it is asked of what is done, too, whether a later value began."""
        return self.reverts or self.even_done or self.trigger == Trigger.ITEMS

    @property
    def is_of_items(self) -> bool:
        """True if a routine that is done matters for its failed items alone."""
        return self.trigger in (Trigger.ITEMS, Trigger.FAKE)

    def takes(self, routine: Routine) -> bool:
        """Return True if a routine is for a process of this role."""
        return self.role is None or routine.role in ("", self.role)

    def repeats(self, routine: Routine) -> bool:
        """Return True if a call may call the routine's body more than once.

        Not a command of ``once call``, because its input from stdin is gone.
        """
        return not self.calls_body or (routine.retry and self.trigger != Trigger.CALL)

    @property
    def due(self) -> list[Standing]:
        """The standings of a routine for which there is something to do."""
        if self.trigger == Trigger.ITEMS:
            return [Standing.DONE]
        held = [] if self.calls_body else [Standing.HELD, Standing.PAUSED]
        is_done = self.even_done or self.trigger == Trigger.FAKE  # perhaps with failed items
        done = [Standing.DONE] * is_done + [Standing.EARLIER] * self.reverts
        return [Standing.OPEN, *held, *done]

    def next_trigger(self, standing: Standing) -> str:
        """Return the trigger of the next attempt: an earlier value is reset before it is run."""
        is_reset = standing is Standing.EARLIER and self.calls_body
        return Trigger.RESET if is_reset else self.trigger
