"""A database session in a thread of its own, which proves to its server that it lives."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol, TypeVar

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.exceptions import GuardLost, NoConnection

__all__ = ["Holder", "Session"]

T = TypeVar("T")


class Holder(Protocol):
    """Whom a session serves at present: a guard. What it asks is asked in the thread."""

    using: str
    name: str
    #: Seconds of silence after which the server ends the session.
    liveness: float

    @property
    def interval(self) -> float:
        """Seconds between two signs of life."""

    def connect(self) -> BaseDatabaseWrapper:
        """A new connection wrapper, not from a pool, that gives up on a silent network."""

    def beat(self) -> None:
        """Give a sign of life."""

    def end(self) -> None:
        """Leave nothing of the session behind."""


class Session:
    """One session, from its first call to its loss or its end.

    In its thread the connection of the alias *is* the session.
    """

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._connection: BaseDatabaseWrapper | None = None
        self._lost: GuardLost | None = None
        self._is_hung = False
        self._is_silent = False
        #: When the server was last asked a question that it answered, and how many seconds it took.
        self.answered = monotonic()
        self.took = 0.0
        self._give_up_at: float | None = None
        self._thread = threading.Thread(
            target=self._serve, name=f"once guard of {holder.name}", daemon=True
        )
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether it is of no use any more."""
        return self._lost is not None

    def call(self, function: Callable[[], T], timeout: float) -> T:
        """Call a function in the thread.

        Raises:
            GuardLost: the session was lost, or there was no answer in time.

        """
        if self._is_hung:
            self._raise_if_lost()
        answer: Future[T] = Future()
        self._calls.put((answer, function))
        try:
            return answer.result(timeout)
        except TimeoutError:
            if answer.done():
                return answer.result()  # in the last moment, or it is the error
            # Silence for longer than the server itself would bear is the loss of the session.
            self._is_hung = True
            self._lost = self._loss(f"no answer for {timeout:.0f} s")
            raise self._again(self._lost) from None

    def check(self) -> None:
        """Raise where the last answer is too old. Asks nobody.

        Raises:
            GuardLost: the server may have ended the session.

        """
        silence = monotonic() - self.answered
        if self._lost is None and silence > self.holder.liveness:
            raise GuardLost(
                f"The guard of {self.holder.name} had no answer from its server for "
                f"{silence:.1f} s: another process may have taken over."
            )
        self._raise_if_lost()

    def give_up_in(self, seconds: float | None) -> None:
        """Have the session end itself after that many seconds; or not, after all."""
        self._give_up_at = None if seconds is None else monotonic() + seconds
        if seconds is not None:
            self._wake()

    def fall_silent(self) -> None:
        """Give no sign of life from now on."""
        self._is_silent = True
        self._wake()

    def close(self) -> None:
        """End it. Harmless where it has ended."""
        self._calls.put(None)
        # A thread that hangs in a dead network must not hold its caller; it is a daemon.
        self._thread.join(timeout=0 if self._is_hung else self.holder.liveness)

    def _wake(self) -> None:
        self._calls.put((Future(), self._raise_if_lost))  # the thread reads the time anew

    def _loss(self, reason: str) -> GuardLost:
        return GuardLost(f"The guard of {self.holder.name} was lost: {reason}")

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._again(self._lost)

    @staticmethod
    def _again(lost: GuardLost) -> GuardLost:
        return type(lost)(*lost.args)  # anew: each raise adds to its traceback

    # From here on: in the thread.

    def ask(self, function: Callable[[], T]) -> T:
        """Ask the server something, connecting first where that was not done.

        Raises:
            django.db.Error: the session failed.

        """
        asked = monotonic()
        if self._connection is None:
            self._raise_if_lost()
            connections[self.holder.using] = self._connection = self.holder.connect()
        result = function()
        self.answered, self.took = asked, monotonic() - asked
        return result

    def prove(self, function: Callable[[], T]) -> T:
        """Ask the server something, to which no answer is the loss of the session.

        Raises:
            GuardLost: the session is lost.

        """
        self._raise_if_lost()
        try:
            return self.ask(function)
        except Error as error:
            lost = self._loss(str(error).strip() or type(error).__name__)
            self._lose(lost)
            raise lost from error

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

    def _pause(self, give_up_at: float | None) -> float | None:
        if self._connection is None or self._lost is not None or self._is_silent:
            return None  # nothing to keep alive
        next_beat = self.answered + self.holder.interval
        wake = min(next_beat, give_up_at or next_beat)
        return max(0.0, wake - monotonic())

    def _beat(self, give_up_at: float | None) -> None:
        if give_up_at is not None and self._give_up_at and monotonic() >= give_up_at:
            self._lose(
                NoConnection(
                    f"No second connection was to be had for the work of {self.holder.name}, so "
                    "its guard gave itself up. A run needs two at once: raise the size of the pool "
                    "that lends them (default_pool_size of PgBouncer)"
                )
            )
        else:
            with suppress(GuardLost):  # whoever asks next is told
                self.prove(self.holder.beat)

    def _lose(self, how: GuardLost) -> None:
        self._lost = how
        self._close()

    def _close(self) -> None:
        """Close whatever is open; the server frees its locks at the latest with the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # closing ends it as well
                if connection.connection is not None:
                    self.holder.end()
            with suppress(Exception):
                connection.close()
