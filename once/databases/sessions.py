"""A database session in a thread of its own, which proves to its server that it lives."""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases import threads
from once.exceptions import LockLost, NoConnection
from once.text import one_line

if TYPE_CHECKING:
    from once.databases.session_lock import SessionLock


T = TypeVar("T")


class Session:
    """The session of a lock, from its first call to its loss or its end.

    In its thread the connection of the alias *is* the session.
    """

    def __init__(self, lock: "SessionLock") -> None:
        self.lock = lock
        #: The context of the last caller that tried the lock. Because a back end may keep the
        #: schema that it reads in a context variable (django-pgschemas does), the thread's own
        #: context would read another schema.
        self.context: Context = copy_context()
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._connection: BaseDatabaseWrapper | None = None
        self._lost: LockLost | None = None
        self._is_hung = False
        self._is_silent = False
        #: Time of the last question that the server answered, and seconds that the answer took.
        self.answered = monotonic()
        self.took = 0.0
        self._give_up_at: float | None = None
        #: Time at which the thread looks by itself what is due.
        self._wakes_at = inf
        self._thread = threads.start(self._serve, f"once lock of {lock.name}")

    @property
    def is_lost(self) -> bool:
        """True if the session is of no use any more."""
        return self._lost is not None

    def ask(self, function: Callable[[], T], timeout: float) -> T:
        """Call a function that asks the server, in the session's thread and :attr:`context`.

        Raises:
            LockLost: there was no answer in time, or the session was lost: by an error of the
                database, which is the cause, or before.

        """
        self._raise_if_lost()
        answer: Future[T] = Future()
        self._calls.put((answer, partial(self._ask, function)))
        try:
            return answer.result(timeout)
        except TimeoutError:
            if answer.done():
                return answer.result()  # in the last moment, or it is the error
            # Silence for longer than the server itself would bear is the loss of the session.
            self._is_hung = True
            self._lost = self._silence(timeout)
            raise self._again(self._lost) from None

    def check(self) -> None:
        """Raise ``LockLost`` if the last answer is too old. Asks no server."""
        silence = monotonic() - self.answered
        if self._lost is None and silence > self.lock.liveness:
            raise LockLost(
                f"The lock of {self.lock.name} had no answer from its server for "
                f"{silence:.1f} s: another process may have taken over."
            )
        self._raise_if_lost()

    def abandon_after(self, seconds: float | None) -> None:
        """Have the session end itself after that many seconds; or not, if ``None``."""
        self._give_up_at = give_up_at = None if seconds is None else monotonic() + seconds
        # Waking the thread costs more than a statement, and most answers come at once.
        if give_up_at is not None and give_up_at < self._wakes_at:
            self._wake()

    def stop_heartbeat(self) -> None:
        """Give no sign of life from now on."""
        self._is_silent = True
        self._wake()

    def close(self) -> None:
        """End the session. Harmless where it has ended."""
        self._calls.put(None)
        # Because a thread that hangs in a dead network must not hold its caller, it is a daemon.
        self._thread.join(timeout=0 if self._is_hung else self.lock.liveness)

    def _wake(self) -> None:
        self._calls.put((Future(), self._raise_if_lost))  # the thread reads the time anew

    def _silence(self, seconds: float) -> LockLost:
        opened = self._connection
        if opened is not None and opened.connection is not None:
            return self._loss(f"no answer for {seconds:.0f} s")
        return NoConnection(
            f"No connection was to be had for the lock of {self.lock.name} within {seconds:.1f} "
            "s, beside that for the work. See that the server takes new connections. A pool or "
            "pooler, where one lends them, must have two to lend"
        )

    def _loss(self, reason: str) -> LockLost:
        return LockLost(f"The lock of {self.lock.name} was lost: {reason}")

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._again(self._lost)

    @staticmethod
    def _again(lost: LockLost) -> LockLost:
        return type(lost)(*lost.args)  # anew: each raise adds to its traceback

    # From here on: in the thread.

    def _ask(self, function: Callable[[], T]) -> T:
        self._raise_if_lost()
        asked = monotonic()
        try:
            if self._connection is None:
                connections[self.lock.using] = self._connection = self.lock.connect()
            result = function()
        except Error as error:
            lost = self._loss(one_line(error))
            self._lose(lost)
            raise lost from error
        self.answered, self.took = asked, monotonic() - asked
        return result

    def _serve(self) -> None:
        try:
            while True:
                give_up_at = self._give_up_at  # the caller's thread may change it at any time
                self._wakes_at = self._due(give_up_at)
                if give_up_at != self._give_up_at:
                    continue  # because the caller may have read when the thread woke before
                pause = None if self._wakes_at == inf else max(0.0, self._wakes_at - monotonic())
                try:
                    call = self._calls.get(timeout=pause)
                except queue.Empty:
                    self._beat()
                    continue
                if call is None:
                    break
                answer, function = call
                threads.fulfil(answer, partial(self.context.run, function))
        finally:
            self._close()

    def _due(self, give_up_at: float | None) -> float:
        if self._connection is None or self._lost is not None or self._is_silent:
            return inf  # nothing to keep alive
        return min(self._next_beat, give_up_at or inf)

    @property
    def _next_beat(self) -> float:
        return self.answered + self.lock.interval(self.took)

    def _beat(self) -> None:
        give_up_at = self._give_up_at
        if give_up_at is not None and monotonic() >= give_up_at:
            try:
                obstacle = self.context.run(self.lock.obstacle)
            except Error as error:
                obstacle = f"Its own session fails: {one_line(error)}"
            if self._give_up_at != give_up_at:
                return  # the work had its answer meanwhile, and may wait for another one
            self._lose(
                NoConnection(
                    f"The work of {self.lock.name} had no answer in time beside the lock, which "
                    f"gave itself up. {obstacle}"
                )
            )
        elif monotonic() >= self._next_beat:
            with suppress(LockLost):  # the next call raises it
                self.context.run(self._ask, self.lock.heartbeat)

    def _lose(self, how: LockLost) -> None:
        self._lost = how
        self._close()

    def _close(self) -> None:
        """Close the connection, with which the server frees its locks at the latest."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # closing ends it as well
                if connection.connection is not None:
                    self.lock.end()
            with suppress(Exception):
                connection.close()
