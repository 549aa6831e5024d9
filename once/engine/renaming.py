"""Carry the record of a routine over from the names that it had in earlier releases.

This is a routine itself, for which the whole protocol holds: its name is the old one, its version
above all, its body moves the record, and its completion is the tombstone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from once.engine.claim import Claim
from once.engine.options import RunOptions
from once.models import Attempt, Trigger
from once.record import renames
from once.record.standing import Record
from once.results import Result
from once.routines.base import Routine, Run
from once.routines.names import TOMBSTONE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _OldName(Routine):
    """An old name, as a routine whose body carries its record over."""

    version: int = TOMBSTONE

    def __post_init__(self) -> None:
        """Check nothing, because the name was checked, and no other version may be so high."""
        object.__setattr__(self, "takes_run", True)


def carry(
    routine: Routine,
    record: Record,
    options: RunOptions,
    claim: Callable[[Routine, RunOptions], Claim],
) -> Result | None:
    """Carry over what is recorded under old names of a routine.

    If the routine is done, no other process is waited for: a later run carries the record over.

    Return nothing; or the result of the routine, where that could not be done.
    """
    decided = replace(
        options,
        trigger=Trigger.RENAME,
        even_done=False,
        wait=options.wait and not record.is_done,
        user="",
        reason=f"to {routine.name}",
    )
    for name in record.uncarried:

        def body(run: Run, name: str = name) -> None:
            attempts = Attempt.objects.using(run.using)
            renames.carry(attempts.get(routine=name, number=run.attempt), routine)

        old = _OldName(function=body, name=name, using=routine.using)
        result = claim(old, decided).settle()
        if not result.is_done:
            why = f"Not tried, since its record under its old name {name} is not carried over"
            return replace(result, routine=routine, message=f"{why}. {result.message}")
    return None
