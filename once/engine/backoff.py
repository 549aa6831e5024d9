"""The one law of retrying: look again at growing intervals, without a connection meanwhile.

Only the standby of a lock has a session meanwhile, which is the lock's own. Because one look costs
the server about as much as a connection (docs/explanation/fleets.md), a host's waiters take turns.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TypeVar

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once import conf, signals
from once.databases import PATIENCE, database
from once.databases.lock import POOL, AdvisoryLock, NoLock
from once.engine import shutdown
from once.engine.siblings import Siblings
from once.exceptions import (
    AttemptLost,
    CannotFence,
    DatabaseUnavailable,
    LockLost,
    NoConnection,
    TimedOut,
)
from once.text import one_line

T = TypeVar("T")

#: A sentence without its full stop, or a function that finds it, called only if it is reported.
Sentence = str | Callable[[], str]


@dataclass(frozen=True, slots=True)
class Retry:
    """The answer of a look that is to be repeated."""

    #: The obstacle that another process is.
    reason: Sentence = ""
    is_holder: bool = False  # of the lock, for which the waiters of a host take turns to look

    @property
    def message(self) -> str:
        """The reason in words."""
        return self.reason() if callable(self.reason) else self.reason


#: The answer of a look that found the record changed: look again at once.
AGAIN = Retry()


@dataclass(kw_only=True, slots=True)
class Wait:
    """A wait for one routine, or for another process's migrations."""

    #: Name of the routine, or of the work, that is waited for.
    name: str
    #: Alias of the database that it happens in.
    using: str
    #: Time of ``time.monotonic()`` at which to give up, or none.
    deadline: float | None
    #: False if no other process is waited for.
    waits: bool = True
    #: Seconds for which the database may be out of reach, ``ONCE_STARTUP_TIMEOUT`` by default.
    patience: float = field(default_factory=conf.startup_timeout)
    #: The lock, which may know before a pause ends that another look is worth while.
    lock: AdvisoryLock = field(default_factory=NoLock)
    siblings: Siblings = field(default_factory=Siblings)
    started: float = field(default_factory=monotonic)
    has_paused: bool = False
    #: Since when the database has given nothing but errors, or no answer yet.
    _unreachable_since: float | None = None
    _next_report: float = 0.0
    _next_told: float = 0.0
    _said: tuple[str, float] = ("", 0.0)  # the reason that was found out last, and when
    #: Seconds that the last two looks took; 0 for a failed look, whose pause has a law of its own.
    _looks: tuple[float, float] = (0.0, 0.0)

    def until(self, look: Callable[[], T | Retry]) -> T:
        """Call a function until its answer is no ``Retry``, and pause in between.

        An error of the database is survived, whatever it is, and a lost race with another process
        leads to another look. During a pause the lock is free, but a standby stays it.
        """
        while True:
            self._unreachable_since = self._unreachable_since or monotonic()
            try:
                answer = look()
                if not isinstance(answer, Retry):
                    return answer
                self.siblings.join_or_leave(self.lock if answer.is_holder else None)
                self.retreat(answer.reason)  # which may ask the database for the sentence
            except (Error, NoConnection) as error:
                self.siblings.leave()
                self.lock.release()  # a standby's session, too, because other processes may lack it
                self.survive(error)
            except (AttemptLost, CannotFence, LockLost) as error:
                self.retreat(str(error))

    def ask(self, question: Callable[[], T]) -> T:
        """Ask the database, which may be another than the run is at, until it answers."""

        def look() -> T:
            with database(self.using).session(), self.asking():
                return question()

        return self.until(look)

    def retreat(self, reason: Sentence) -> None:
        """Free the lock, unless this is its standby, and pause if there is a reason."""
        self.lock.release_unless_standby()
        if reason:
            self.pause(reason)

    @property
    def seconds(self) -> float:
        """Seconds since the wait began."""
        return monotonic() - self.started

    def pause(
        self,
        reason: Sentence,
        *,
        least: float = 0.0,
        gives_up: bool = True,
        kept: BaseDatabaseWrapper | None = None,
    ) -> None:
        """Close this thread's connections and sleep for about a tenth of the wait so far.

        The pause is longer if looks take long, because then there is a crowd: a waiter is connected
        for a hundredth of the time, or a tenth if looks take over a tenth of a second. So a crowd
        does not get in the way of the holder.

        Args:
            reason: the obstacle.
            least: seconds of the longest pause, at least.
            gives_up: False if what was begun must come to its end, whatever the deadline is.
            kept: a connection to leave open.

        Raises:
            TimedOut: the deadline has passed.

        """
        self._report(reason)
        if gives_up and self._left() <= 0:
            raise TimedOut(
                f"Gave up after {self.seconds:.1f} s: {Retry(reason).message}. Run this again; "
                "`manage.py once status` shows how everything stands."
            )
        self.answered()
        # Because a single look may be slow by chance, the shorter of two counts.
        look = min(self._looks)
        most = self._left() if gives_up else inf
        self._sleep(max(least, min(1.0, 100 * look), min(30.0, 10 * look)), most, kept)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A context for a look at the database, which does not outlast the deadline by much."""
        with self.timed(), database(self.using).answering(self.answer_within):
            yield

    @contextmanager
    def timed(self) -> Iterator[None]:
        """A context for a look: the longer that takes, the longer is the next pause."""
        began = monotonic()
        self._looks = (self._looks[1], 0.0)
        yield
        self._looks = (self._looks[0], monotonic() - began)

    def holder(self) -> str:
        """Return the holder of the lock for people to read, as far as the database tells."""
        with suppress(Error), self.asking():
            self.lock.find_holder()
        return self.lock.holder

    @property
    def is_report_due(self) -> bool:
        """True if the next pause is reported; reports come at growing intervals."""
        return self.seconds >= self._next_report

    @property
    def answer_within(self) -> float:
        """Seconds in which an answer has to come, so that deadline and patience are kept."""
        now = monotonic()
        patience_left = self.patience - (now - (self._unreachable_since or now))
        return min(PATIENCE, max(0.5, self._left()), max(2.0, patience_left))

    @property
    def timeout(self) -> float | None:
        """Seconds until the deadline, or none."""
        return None if self.deadline is None else max(0.0, self._left())

    def answered(self) -> None:
        """Take note that the database answers."""
        self._unreachable_since = None

    def end(self, message: str = "") -> None:
        """Report that another process did what is waited for, or why the wait ended without."""
        signals.waited.send_robust(None, name=self.name, waited=self.seconds, message=message)

    def survive(self, error: Exception) -> None:
        """Pause after an error that may pass, such as a refused connection.

        Raises:
            DatabaseUnavailable: such errors have come for longer than patience or deadline allow.

        """
        self._unreachable_since = self._unreachable_since or monotonic()
        lasted = monotonic() - self._unreachable_since
        self._report(reason := self._trouble(error))
        if lasted > self.patience or self._left() <= 0:
            raise DatabaseUnavailable(
                f"For {lasted:.1f} s, {reason}.{self._next_step(error)}"
            ) from error
        # Because a refused connection may mean more waiters than connections, the pause is long.
        since = self.siblings.told_at or self.started  # the crowd ends with the wait
        self._sleep(max(0.5, min(10.0, (monotonic() - since) / 5)), self._left())

    def worked(self, seconds: float) -> None:
        """Take note that an attempt lasted for so long: that time tells nothing of the database."""
        if self._unreachable_since is not None:
            self._unreachable_since += seconds

    def insist(self, function: Callable[[], T]) -> T:
        """Call a function until the database lets it, and give up after the patience alone.

        For what has happened and must be recorded, so that no deadline and no signal ends it.

        Raises:
            django.db.Error: the database did not let it in time.
            CannotFence: a session could not be ended in time.

        """
        since = monotonic()
        while True:
            try:
                return function()
            except (Error, CannotFence) as error:
                if monotonic() - since > self.patience:
                    raise
                self._report(self._trouble(error))
            connections[self.using].close()
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311

    def _trouble(self, error: Exception) -> str:
        return f"database {self.using!r} cannot be used: {one_line(error).rstrip('.?')}"

    def _next_step(self, error: Exception) -> str:
        if isinstance(error, NoConnection):  # which says it itself
            return ""
        here = database(self.using)
        if advice := here.advice(error):
            return f" {advice}"
        if isinstance(error, Error) and not here.is_lost(error):
            return " Mend that, then run this again."
        pool = f" {POOL}." if self.lock.is_pooled else ""
        return f" Check that it runs and that DATABASES[{self.using!r}] is right.{pool}"

    def _left(self) -> float:
        return inf if self.deadline is None else self.deadline - monotonic()

    def _report(self, reason: Sentence) -> None:
        if self.is_report_due:
            self._next_report = self._later()
            self._said = Retry(reason).message, self.seconds
            self._tell()

    def _tell(self) -> None:
        """Report what was found out last, which is long ago where siblings look."""
        (said, then), waited = self._said, self.seconds
        if waited >= self._next_told:
            self._next_told = self._later()
            reason = f"{said}, as of {ago} s ago" if (ago := round(waited - then)) else said
            signals.waiting.send_robust(None, name=self.name, reason=reason, waited=waited)

    def _later(self) -> float:
        return max(1.0, min(2 * self.seconds, self.seconds + 60))

    def _sleep(self, least: float, most: float, kept: BaseDatabaseWrapper | None = None) -> None:
        self.has_paused = True
        # Because routines before and after may live in other databases, all connections close.
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block and connection is not kept:
                connection.close()
        # Slow looks and errors make pauses that are longer than the lock's longest.
        longest = self.siblings.longest_pause(self.lock, min(self._looks))
        pause = max(0.05, least, min(longest, self.seconds / 10))
        pause *= random.uniform(0.5, 1.0)  # noqa: S311
        if self.lock.freed_in is not None:
            pause = min(pause, self.lock.freed_in + random.uniform(0.05, 0.5))  # noqa: S311
            self.lock.freed_in = None
        with shutdown.heeded():
            self.siblings.wait(self.lock, max(0.0, min(pause, most)), most, self._tell)
