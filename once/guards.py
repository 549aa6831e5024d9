"""Who may start: a lock that one process at a time holds, and that its server frees for it.

A guard knows no routine and no model. It is for efficiency: losing it makes nothing incorrect,
because whoever holds it next ends its predecessor's right to commit before starting.
"""

import queue
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.exceptions import GuardLost, InsideRun, NoConnection

__all__ = ["Guard", "SessionGuard"]

T = TypeVar("T")


class Guard(ABC):
    """A lock on a name. Leaving the context frees it."""

    #: Who holds the lock, for people to read; known after ``is_free`` or ``acquire`` said no.
    holder: str = "another process"
    #: Where the holder is silent: seconds until the server evicts it. Known like the holder.
    freed_in: float | None = None
    #: What tells the lock from others, in this process.
    identity: Hashable
    #: The locks that this process holds, each with the thread that took it.
    _threads: ClassVar[dict[Hashable, int]] = {}
    _is_marked = False

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
        self._is_marked = True
        self._threads[self.identity] = threading.get_ident()

    def unmark(self) -> None:
        """Note that it does no more."""
        if self._is_marked:
            self._is_marked = False
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

    def is_free(self) -> bool:
        """Whether it is worth trying to take the lock, where somebody had it a moment ago.

        Asks in the calling thread's session, where that is cheaper than one more session.
        """
        return True

    @abstractmethod
    def acquire(self, within: float = inf) -> bool:
        """Try to take the lock, without waiting for it.

        Args:
            within: seconds in which its server has to answer.

        Raises:
            django.db.Error: the guard's own connection failed.

        """

    @abstractmethod
    def release(self) -> None:
        """Free the lock. Harmless where it is not held."""

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

    What that session does is for the subclass to say: four methods, each called in the thread,
    where the connection of the alias *is* the guard's session.
    """

    #: Seconds that a caller may keep :meth:`yielding`, drawn at random so that guards part.
    patience: ClassVar[tuple[float, float]] = (1.0, 3.0)

    def __init__(self, using: str, name: str, liveness: float) -> None:
        self.using = using
        self.name = name
        self.identity = (using, name)
        self.liveness = liveness
        #: The caller's connection, which the guard's is to be like: it may be a tenant's.
        self.like = connections[using]
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        self._session: BaseDatabaseWrapper | None = None
        self._lost: GuardLost | None = None
        self._answered = 0.0
        self._give_up_at: float | None = None
        self._is_silent = False

    @abstractmethod
    def connect(self) -> BaseDatabaseWrapper:
        """A new connection wrapper, not from a pool, that gives up on a silent network."""

    @abstractmethod
    def begin(self) -> None:
        """Begin the session that the server ends after ``liveness`` seconds of silence."""

    @abstractmethod
    def try_lock(self) -> bool:
        """Try to take the lock in this session; where refused, find out the ``holder``."""

    @abstractmethod
    def set_liveness(self) -> None:
        """Tell the server the new ``liveness``."""

    @abstractmethod
    def end(self) -> None:
        """Free the lock and leave nothing of the session behind."""

    def acquire(self, within: float = inf) -> bool:
        self._thread = threading.Thread(
            target=self._serve, name=f"once guard of {self.name}", daemon=True
        )
        self._thread.start()
        held = False
        try:
            # Connecting included.
            held = self._call(self._open, timeout=min(within, 2 * self.liveness + 5))
        finally:
            if held:
                self.mark()
            else:
                self.release()
        return held

    def release(self) -> None:
        self.unmark()
        if self._thread is not None:
            self._calls.put(None)
            # A thread that hangs in a dead network must not hold its caller; it is a daemon.
            self._thread.join(timeout=self.liveness)
            self._thread = None

    def read(self, function: Callable[[], T]) -> T:
        return self._call(lambda: self._prove(function))

    def keep(self, liveness: float) -> None:
        self.liveness = liveness
        self._call(lambda: self._prove(self.set_liveness))

    def ping(self) -> None:
        self._call(lambda: self._prove(self._select))

    def check(self) -> None:
        silence = monotonic() - self._answered
        if self._lost is None and silence > self.liveness:
            raise GuardLost(
                f"The guard of {self.name} had no answer from its server for {silence:.1f} s: "
                "another process may have taken over."
            )
        self._raise_if_lost()

    def fall_silent(self) -> None:
        self._is_silent = True
        self._calls.put((Future(), self._raise_if_lost))  # wakes the thread: its pause has no end

    @contextmanager
    def yielding(self) -> Iterator[None]:
        self._give_up_at = monotonic() + random.uniform(*self.patience)  # noqa: S311
        self._calls.put((Future(), self._raise_if_lost))  # wakes the thread: it reads the time
        try:
            yield
        finally:
            self._give_up_at = None

    def _call(self, function: Callable[[], T], timeout: float | None = None) -> T:
        timeout = timeout or self.liveness
        if self._thread is None:
            raise GuardLost(f"The guard of {self.name} is not held.")
        answer: Future[T] = Future()
        self._calls.put((answer, function))
        done, _ = wait([answer], timeout)
        if not done:
            # Silence for longer than the server itself would bear is the loss of the guard.
            self._lost = self._loss(f"no answer for {timeout:.0f} s")
            self._raise_if_lost()
        return answer.result()

    # From here on: the guard's own thread.

    def _serve(self) -> None:
        try:
            while True:
                give_up_at = self._give_up_at  # the caller's thread may change it at any time
                try:
                    call = self._calls.get(timeout=self._pause(give_up_at))
                except queue.Empty:
                    self._beat(give_up_at)
                    continue
                if call is None:
                    break
                answer, function = call
                try:
                    answer.set_result(function())
                except BaseException as error:  # raised in the caller's thread
                    answer.set_exception(error)
        finally:
            self._close()

    def _open(self) -> bool:
        # Connections belong to threads: in this one, the alias now means the guard's session.
        connections[self.using] = self._session = self.connect()
        self._answered = monotonic()
        self.begin()
        return self.try_lock()

    def _pause(self, give_up_at: float | None) -> float | None:
        if self._session is None or self._lost is not None or self._is_silent:
            return None  # nothing to keep alive
        next_ping = self._answered + self.liveness / 3
        wake = min(next_ping, give_up_at or next_ping)
        return max(0.0, wake - monotonic())

    def _beat(self, give_up_at: float | None) -> None:
        if give_up_at is not None and self._give_up_at and monotonic() >= give_up_at:
            self._lose(
                NoConnection(
                    f"No second connection was to be had for the work of {self.name}, so its guard "
                    "gave itself up. A run needs two at once: raise the size of the pool that "
                    "lends them (default_pool_size of PgBouncer)"
                )
            )
        else:
            with suppress(GuardLost):  # whoever asks next is told
                self._prove(self._select)

    def _prove(self, function: Callable[[], T]) -> T:
        """Do something in the session: an answer to it is a sign of life."""
        self._raise_if_lost()
        asked = monotonic()
        try:
            result = function()
        except Error as error:
            lost = self._loss(str(error).strip() or type(error).__name__)
            self._lose(lost)
            raise lost from error
        self._answered = asked
        return result

    def _select(self) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute("SELECT 1")

    def _loss(self, reason: str) -> GuardLost:
        return GuardLost(f"The guard of {self.name} was lost: {reason}")

    def _lose(self, how: GuardLost) -> None:
        self._lost = how
        self._close()

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise type(self._lost)(*self._lost.args)  # anew: each raise adds to its traceback

    def _close(self) -> None:
        """Close whatever is open; the server frees the lock at the latest with the connection."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):  # closing ends it as well
                if session.connection is not None:
                    self.end()
            with suppress(Exception):
                session.close()
