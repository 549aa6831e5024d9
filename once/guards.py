"""Who may start: a lock that one process at a time holds, and that its server frees for it.

A guard knows no routine and no model. It is for efficiency: losing it makes nothing incorrect,
because whoever holds it next ends its predecessor's right to commit before starting.
"""

import enum
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.exceptions import GuardLost, InsideRun
from once.sessions import Session

__all__ = ["ATTENTION", "Guard", "Place", "SessionGuard"]

T = TypeVar("T")

#: Seconds between two questions of who is to notice at once that a lock is free.
ATTENTION = 0.05


class Place(enum.Enum):
    """What a session that tried a lock has come to be."""

    HOLDER = "holder"
    HEIR = "heir"
    NONE = "none"


class Guard(ABC):
    """A lock on a name. Leaving the context frees it."""

    #: Who held the lock when that was last found out, for people to read.
    holder: str = "another process"
    #: Where the holder was silent: seconds until the server evicts it. Known like the holder.
    freed_in: float | None = None
    #: What tells the lock from others, in this process.
    identity: Hashable
    #: The locks that this process holds, each with the thread that took it.
    _threads: ClassVar[dict[Hashable, int]] = {}
    #: Whether this thread is known to hold it by this.
    is_marked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def mark(self) -> None:
        """Note that this thread holds the lock."""
        self.is_marked = True
        self._threads[self.identity] = threading.get_ident()

    def unmark(self) -> None:
        """Note that it does no more."""
        if self.is_marked:
            self.is_marked = False
            self._threads.pop(self.identity, None)

    def refuse_own_thread(self) -> None:
        """Raise where waiting for the lock would be waiting for oneself.

        Raises:
            InsideRun: this thread holds the lock.

        """
        if self._threads.get(self.identity) == threading.get_ident():
            raise InsideRun(
                "This thread runs that already: a signal receiver, a hook or a migration of a run "
                "cannot start the same again and wait for it. Do it after that run."
            )

    def is_worth_trying(self) -> bool:
        """Whether to try to take the lock, where somebody had it a moment ago.

        Asks in the calling thread's session, where that is cheaper than one more session.
        """
        return True

    def find_holder(self) -> bool:
        """Find out who holds the lock. Asks in the calling thread's session.

        Returns:
            Whether anybody does.

        """
        return True

    @property
    def longest_pause(self) -> float:
        """Seconds after which who waits asks again at the latest."""
        return 5.0

    def attend(self, seconds: float) -> None:
        """Sleep for that long, or until the lock may be had, where this can know."""
        time.sleep(seconds)

    @abstractmethod
    def acquire(self, within: float = inf) -> bool:
        """Try to take the lock, without waiting for it.

        Who does not get it may have become its heir, who is told by :meth:`attend`.

        Args:
            within: seconds in which its server has to answer.

        Raises:
            django.db.Error: the guard's own connection failed.
            GuardLost: its server did not answer in time.

        """

    @abstractmethod
    def release(self) -> None:
        """Free the lock, and be no heir. Harmless where it is not held."""

    def step_back(self) -> None:
        """Free the lock, but stay its heir where this is."""
        self.release()

    def read(self, function: Callable[[], T]) -> T:
        """Call a function whose queries see what only the holder of the lock can know.

        Raises:
            GuardLost: the lock was lost before or during the call.

        """
        return function()

    def keep(self, liveness: float) -> None:
        """From now on, be evicted only after that many seconds without a sign of life.

        Raises:
            GuardLost: the lock is lost.

        """

    def ping(self) -> None:
        """Ask the server whether the lock is still held.

        Raises:
            GuardLost: it is not.

        """

    def confirm(self) -> None:
        """Ask the server whether the lock is still held, unless it has just said so.

        Raises:
            GuardLost: it is not.

        """

    def check(self) -> None:
        """Raise where the last proof that the lock is held is too old. Asks nobody.

        Raises:
            GuardLost: somebody else may have the lock.

        """

    def fall_silent(self) -> None:
        """Give no sign of life from now on, as a frozen process would, to see what follows."""

    @contextmanager
    def yielding(self) -> Iterator[None]:
        """A context that must not last: after 1 to 3 s in it the guard gives itself up.

        For a caller who waits for a connection that other guards may be keeping from it: behind
        a small pooler, everybody could otherwise wait for everybody.
        """
        yield


class SessionGuard(Guard):
    """A guard that lives in a database session of its own, kept alive by a thread of its own.

    One of those who wait for the lock is its *heir*: it holds a second lock, keeps its session and
    asks often, so that a holder who dies is followed at once and the others may ask rarely.

    What is done in the session is for the subclass to say: methods called in its thread.
    """

    #: Seconds that a caller may keep :meth:`yielding`, drawn at random so that guards part.
    patience: ClassVar[tuple[float, float]] = (1.0, 3.0)

    def __init__(self, using: str, name: str, liveness: float, before: Guard | None = None) -> None:
        self.using = using
        self.name = name
        self.identity = (using, name)
        self.liveness = self._usual_liveness = liveness
        self._session: Session | None = None
        #: Whether this is the heir, and whether there may be one.
        self.is_heir = False
        self.has_heirs = True
        #: Set once the heir has the lock, or has lost its place.
        self._turn = threading.Event()
        if isinstance(before, SessionGuard):
            # One message frees what that has locked, and tries this lock.
            before.unmark()
            self._session, before._session = before._session, None

    @abstractmethod
    def connect(self) -> BaseDatabaseWrapper:
        """A new connection wrapper, not from a pool, that gives up on a silent network."""

    @abstractmethod
    def take(self) -> Place:
        """Begin anew: free what the session holds, limit its silence, and try the lock.

        Where that is refused, try to be the heir, or find out that there are none.
        """

    @abstractmethod
    def set_liveness(self) -> None:
        """Tell the server the new ``liveness``."""

    @abstractmethod
    def look(self) -> bool:
        """Whether nobody holds the lock, or nobody is its heir.

        Asks in the calling thread's session, and as little as can be: a crowd does, at each look.
        """

    @abstractmethod
    def end(self) -> None:
        """Free the lock and leave nothing of the session behind."""

    def acquire(self, within: float = inf) -> bool:
        session = self._open()
        self.liveness = self._usual_liveness
        place = Place.NONE

        def take() -> Place:
            self._turn.clear()
            place = self.take()
            if session is self._session:  # else the answer comes when nobody waits for it any more
                self.is_heir = place is Place.HEIR
            return place

        try:
            # Connecting included.
            place = session.call(lambda: session.ask(take), min(within, 2 * self.liveness + 5))
        finally:
            if place is Place.HOLDER:
                self.mark()
            elif place is Place.NONE:
                self.release()
        return place is Place.HOLDER

    def _open(self) -> Session:
        if self._session is not None and self._session.is_lost:
            self.release()
        if self._session is None:
            # The caller's connection, which the session's is to be like: it may be a tenant's.
            self.like = connections[self.using]
            self._session = Session(self)
        self._session.holder = self
        return self._session

    def release(self) -> None:
        self.unmark()
        self.is_heir = False
        self._turn.clear()
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def step_back(self) -> None:
        # What an heir has got since it asked is its own: it is told by the next attend().
        if self.is_marked or not self.is_heir:
            self.release()

    @property
    def longest_pause(self) -> float:
        return 60.0 if self.has_heirs and not self.is_marked else 5.0

    def is_worth_trying(self) -> bool:
        if self.is_heir:
            return self._turn.is_set()
        if not self.has_heirs:
            self.find_holder()  # who may be about to be evicted, and nobody else looks for that
        return self.look()

    def attend(self, seconds: float) -> None:
        if self.is_heir:
            self._turn.wait(seconds)
        else:
            time.sleep(seconds)

    def read(self, function: Callable[[], T]) -> T:
        session = self._held()
        return session.call(lambda: session.prove(function), self.liveness)

    def keep(self, liveness: float) -> None:
        self.liveness = liveness
        self.read(self.set_liveness)

    def ping(self) -> None:
        self.read(self.show_life)

    def confirm(self) -> None:
        if monotonic() - self._held().answered > self.liveness / 10:
            self.ping()
        else:
            self._held().check()

    def check(self) -> None:
        self._held().check()

    def fall_silent(self) -> None:
        self._held().fall_silent()

    @contextmanager
    def yielding(self) -> Iterator[None]:
        session = self._held()
        session.give_up_in(random.uniform(*self.patience))  # noqa: S311
        try:
            yield
        finally:
            session.give_up_in(None)

    def _held(self) -> Session:
        if self._session is None:
            raise GuardLost(f"The guard of {self.name} is not held.")
        return self._session

    def expect_end(self, silence: float) -> None:
        """Note when a holder is going to be evicted who gave no sign of life for so long."""
        is_late = self.liveness / 2 <= silence < self.liveness  # one was due after a third
        self.freed_in = self.liveness - silence if is_late else None

    # In the session's thread:

    @property
    def interval(self) -> float:
        if not self.is_heir or self._turn.is_set() or self._session is None:
            return self.liveness / 3
        # A server that is slow to answer is asked less often.
        return min(self.liveness / 3, max(ATTENTION, 10 * self._session.took))

    def beat(self) -> None:
        if not self.is_heir or self._turn.is_set():
            self.show_life()
            return
        try:
            # Each time anew: CREATE INDEX CONCURRENTLY waits for transactions, and whose holder
            # runs one would wait for an heir that waits for it.
            place = self.take()
        except Exception:
            self._turn.set()
            raise
        if place is not Place.HEIR:
            self.is_heir = place is Place.HOLDER  # until it is told
            self._turn.set()

    def show_life(self) -> None:
        """Ask the server anything."""
        with connections[self.using].cursor() as cursor:
            cursor.execute("SELECT 1")
