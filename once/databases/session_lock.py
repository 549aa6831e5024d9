"""A lock that lives in a database session, which its server ends if it falls silent."""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from math import inf
from time import monotonic
from typing import Any, ClassVar, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases.lock import AdvisoryLock
from once.databases.sessions import Session
from once.databases.standby import ATTENTION, Place, Standby
from once.databases.tables import ask, execute
from once.exceptions import LockLost

T = TypeVar("T")


class SessionLock(AdvisoryLock):
    """A lock that lives in a database session of its own, kept alive by a thread of its own.

    The session serves one name after another. One waiter is the *standby* of the lock: it keeps
    its session and asks often. Because it follows a dead holder at once, all other waiters may ask
    rarely.
    """

    #: Seconds for :meth:`yielding`, drawn at random so that two locks do not give up together.
    patience: ClassVar[tuple[float, float]] = (1.0, 3.0)

    def __init__(self, using: str, name: str, liveness: float) -> None:
        self.using = using
        self.liveness = self._usual_liveness = liveness
        self._session: Session | None = None
        self.switch_to(name)

    def switch_to(self, name: str) -> None:
        # The session stays: one message frees the lock before and tries this one.
        self.unmark()
        self.identity = (self.using, name)
        self.name = name
        self.holder, self.freed_in = AdvisoryLock.holder, None
        self.standby = Standby(name)

    @abstractmethod
    def connect(self) -> BaseDatabaseWrapper:
        """Return a new connection, not from a pool, that gives up on a silent network.

        This method and those below but :meth:`look` are called in the session's thread.
        """

    @abstractmethod
    def take(self, name: str) -> Place:
        """Free what the session holds, limit its silence, and try the lock, then the standby's.

        Args:
            name: of the lock, because meanwhile the caller's thread may switch to another one.

        """

    @abstractmethod
    def set_liveness(self) -> None:
        """Tell the server the new ``liveness``."""

    @abstractmethod
    def look(self) -> bool:
        """Return True if the lock is free, or the place of its standby.

        Asks in the calling thread's session, and little: every waiter does so at each look.
        """

    @abstractmethod
    def end(self) -> None:
        """Free the lock and leave nothing of the session behind."""

    def acquire(self, within: float = inf) -> bool:
        self._open().context = copy_context()
        self.liveness = self._usual_liveness
        # A new one, because an answer may come after its caller gave up.
        self.standby = standby = Standby(self.name)
        place = Place.NONE
        try:
            # Connecting included.
            timeout = min(within, 2 * self.liveness + 5)
            place = self._unwrapped(lambda: standby.enter(self.take), timeout)
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
        return self._session

    def release(self) -> None:
        self.unmark()
        self.standby = Standby(self.name)
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def release_unless_standby(self) -> None:
        # A standby that has got the lock meanwhile keeps it: the next wait() returns at once. But
        # a waiter that was told, and could not take over, would keep it and never pause.
        if self.is_owned or not self.standby.has_place or self.standby.is_told:
            self.release()

    @property
    def longest_pause(self) -> float:
        return 5.0 if self.is_pooled or self.is_owned else 60.0

    def is_worth_trying(self) -> bool:
        if self.standby.has_place:
            self.standby.is_told = self.standby.is_due
            return self.standby.is_told
        if self.is_pooled:
            self.find_holder()  # it may be about to be evicted, which no standby looks for
        return self.look()

    def wait(self, seconds: float) -> bool:
        return self.standby.wait(seconds) if self.standby.has_place else super().wait(seconds)

    @property
    def is_asking(self) -> bool:
        return self.standby.is_asking

    @property
    def shared_key(self) -> str:
        settings = connections[self.using].settings_dict
        return ":".join(str(settings[key]) for key in ("HOST", "PORT", "NAME")) + f":{self.name}"

    def read(self, function: Callable[[], T]) -> T:
        def read() -> T:
            with self.leaving_nothing():
                return function()

        return self._unwrapped(read, self.liveness)

    def _unwrapped(self, function: Callable[[], T], timeout: float) -> T:
        """Call a function in the session's thread; raise the error itself that ends the session."""
        try:
            return self._own_session().ask(function, timeout)
        except LockLost as lost:
            if (error := lost.__cause__) is None:
                raise
        raise error  # because it tells of the record, and may be none of the session

    def keep(self, liveness: float) -> None:
        self.liveness = liveness
        self._own_session().ask(self.set_liveness, liveness)

    def ping(self) -> None:
        self._own_session().ask(self.show_life, self.liveness)

    def confirm(self) -> None:
        if monotonic() - self._own_session().answered > self.liveness / 10:
            self.ping()
        else:
            self._own_session().check()

    def check(self) -> None:
        self._own_session().check()

    def stop_heartbeat(self) -> None:
        self._own_session().stop_heartbeat()

    @contextmanager
    def yielding(self) -> Iterator[None]:
        session = self._own_session()
        session.abandon_after(random.uniform(*self.patience))  # noqa: S311
        try:
            yield
        finally:
            session.abandon_after(None)

    def ask(self, sql: str, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Execute a statement in the calling thread's session, and return the rows it answers."""
        return ask(connections[self.using], sql, params)

    def execute(self, sql: str) -> None:
        """Execute a statement in the calling thread's session that answers no rows."""
        execute(connections[self.using], sql)

    def _own_session(self) -> Session:
        if self._session is None:
            raise LockLost(f"The lock of {self.name} is not owned.")
        return self._session

    def expect_end(self, silence: float) -> None:
        """Note when the holder, silent for so long, is going to be evicted."""
        is_late = self.liveness / 2 <= silence < self.liveness  # one was due after a third
        self.freed_in = self.liveness - silence if is_late else None

    # In the session's thread:

    def obstacle(self) -> str:
        """Return what may keep the work from its answer, for people to read."""
        return "See what the server waits for: a disk, a replica, or a lock of another session"

    def leaving_nothing(self) -> AbstractContextManager[None]:
        """Return a context in which a read table is locked no longer than the statement takes.

        Because autocommit does so by itself, only a lock that is in a transaction overrides this.
        """
        return nullcontext()

    def interval(self, took: float) -> float:
        """Return the seconds between two signs of life, of which the last one took so many."""
        # Because poolers and address translators end idle connections, whatever this process lost,
        # a longer timeout after lost attempts does not lengthen the interval.
        usual = self._usual_liveness / 3
        if not self.standby.is_asking:
            return usual
        return min(usual, max(ATTENTION, 10 * took))  # a server that is slow is asked less often

    def heartbeat(self) -> None:
        """Show life, as the standby by a question for the lock."""
        standby = self.standby
        if standby.is_asking:
            standby.ask(self.take_again)
        else:
            self.show_life()

    def take_again(self, name: str) -> Place:
        """Try the lock again, as its standby."""
        return self.take(name)

    def show_life(self) -> None:
        """Ask the server anything."""
        self.ask("SELECT 1")


def foreign(session: str, remedy: str, since: str = "") -> str:
    """Name a holder that is another program, because any user may take any such lock."""
    return f"a session that is none of once ({session}){since}: unless it ends soon, {remedy}"
