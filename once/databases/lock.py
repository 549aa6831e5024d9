"""The advisory lock: it lets one process at a time start a routine, and its server frees it.

A lock knows no routine and no model. It is for efficiency: because the next holder ends its
predecessor's right to commit before it starts, losing the lock makes nothing incorrect.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from math import inf
from typing import ClassVar, Self, TypeVar

from once.exceptions import InsideRun

T = TypeVar("T")

#: The needs of a run, for a person whose pooler lends too little: a sentence without full stop.
POOL = (
    "A run needs two connections at once, or three where a migration waits for it: raise the size "
    "of the pool that lends them (default_pool_size of PgBouncer), or see what keeps them"
)


class AdvisoryLock(ABC):
    """A lock on a name, or on one name after another. Leaving the context frees it."""

    #: The holder when it was last found out, for people to read.
    holder: str = "another process"
    #: Seconds until the server evicts a holder that is silent. Known like the holder.
    freed_in: float | None = None
    #: True if a pooler is known to stand before the server: a lock behind it has no standby.
    is_pooled: bool = False
    #: Key of the lock in this process.
    identity: Hashable
    #: The locks that this process owns, each with the thread that took it.
    _owned: ClassVar[dict["AdvisoryLock", int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    @property
    def is_owned(self) -> bool:
        """True if this object is known to own the lock."""
        return self in self._owned

    def mark(self) -> None:
        """Note that this thread holds the lock."""
        self._owned[self] = threading.get_ident()

    def unmark(self) -> None:
        """Note that this thread holds the lock no more."""
        self._owned.pop(self, None)

    def refuse_own_thread(self) -> None:
        """Raise ``InsideRun`` if this thread holds the lock: it would wait for itself."""
        own = threading.get_ident()
        if any(
            lock.identity == self.identity and thread == own
            for lock, thread in [*self._owned.items()]
        ):
            raise InsideRun(
                "This thread runs that already: a signal receiver, a hook or a migration of a run "
                "cannot start the same again and wait for it. Do it after that run."
            )

    def switch_to(self, name: str) -> None:
        """Be the lock of another name. The next :meth:`acquire` frees the one before."""
        self.release()

    @abstractmethod
    def acquire(self, within: float = inf) -> bool:
        """Try to take the lock, without waiting for it.

        If the lock is taken, this process may become its standby: :meth:`wait` then returns as soon
        as the lock is free.

        Args:
            within: seconds in which its server has to answer.

        Raises:
            django.db.Error: the lock's own connection failed.
            LockLost: its server did not answer in time.

        """

    @abstractmethod
    def release(self) -> None:
        """Free the lock, and be no standby. Harmless where it is not owned."""

    def release_unless_standby(self) -> None:
        """Free the lock, but stay its standby where this is."""
        self.release()

    # For a waiter.

    @property
    def shared_key(self) -> str:
        """Key of the lock among the processes of a host; empty where each asks by itself."""
        return ""

    @property
    def is_asking(self) -> bool:
        """True if the lock's own session asks for it again and again, as its standby."""
        return False

    # These ask in the calling thread's session.

    def is_worth_trying(self) -> bool:
        """Return True unless another process still holds the lock, which it had a moment ago."""
        return True

    def find_holder(self) -> bool:
        """Set :attr:`holder`; return True if there is a holder."""
        return True

    def refuse_other_place(self) -> None:
        """Raise ``OnceError`` if the lock's session reads another schema than the caller's own.

        Because a process with another lock would wait for no other, this is asked where waiting
        cannot be explained.
        """

    @property
    def longest_pause(self) -> float:
        """Seconds that a waiter's pauses grow to, unless its looks are slow."""
        return 5.0

    def wait(self, seconds: float) -> bool:
        """Sleep for that long, or return True once the lock may be had, where this can know."""
        time.sleep(seconds)
        return False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Free the lock meanwhile, if it is the only lock of its database: routines need it.

        Raises:
            AttemptLost: another process has it afterwards.

        """
        yield

    # For the holder. Each raises LockLost if the lock is lost.

    def blockers(self, session: int) -> str:
        """Return the sessions for whose locks a session waits, for people to read; or empty."""
        return ""

    def read(self, function: Callable[[], T]) -> T:
        """Call a function whose queries see what only the holder of the lock can know.

        No lock on what they read outlives the query: the session holds its lock and nothing else.

        Raises:
            django.db.Error: a query failed, and with it the session.

        """
        return function()

    def keep(self, liveness: float) -> None:
        """Be evicted only after that many seconds without a sign of life, from now on."""

    def ping(self) -> None:
        """Ask the server whether the lock is still owned."""

    def confirm(self) -> None:
        """Ask the server whether the lock is still owned, unless it has just said so."""

    def check(self) -> None:
        """Raise if the last proof of owning the lock is too old. Asks no server."""

    def stop_heartbeat(self) -> None:
        """Give no sign of life from now on, as a frozen process would, to see what follows."""

    @contextmanager
    def yielding(self) -> Iterator[None]:
        """Give the lock up if this context lasts longer than 1 to 3 s.

        For a caller that waits for a connection which the locks of other processes may be keeping:
        behind a small pooler, all could otherwise wait for each other.
        """
        yield


class NoLock(AdvisoryLock):
    """A lock for which no other process competes."""

    def acquire(self, within: float = inf) -> bool:
        return True

    def release(self) -> None:
        pass
