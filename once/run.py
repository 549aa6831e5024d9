"""What a body is told about the attempt that it is part of."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a body that takes ``run`` is told about the attempt that it is part of."""

    #: Alias of the database that holds the record and should receive the effects.
    using: str
    #: Number of this attempt, larger than that of any earlier one: a fencing token.
    attempt: int
    #: Idempotency key, 32 hexadecimal digits: the same for every attempt at one completion.
    key: str
    #: Raises :exc:`once.exceptions.GuardLost` where somebody else may have taken over, and
    #: :exc:`KeyboardInterrupt` where this process was told to end.
    check: Callable[[], None]
