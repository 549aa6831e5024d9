"""Waiting for others: polls more and more rarely, without a connection, and says for whom.

Only the heir of a guard has a session meanwhile, which is the guard's own. The law of the pauses is
chosen from measurements (docs/explanation/fleets.md): a look costs its server about as much as a
connection does, so it is the crowd of those who wait that has to be borne.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from django.db import connections

from once import conf, interruption, signals
from once.databases import PATIENCE, database
from once.exceptions import DatabaseUnavailable, NoConnection, TimedOut
from once.guards import Guard
from once.text import one_line

__all__ = ["Wait"]

#: Seconds of a pause at most, where no guard is waited for.
_MOST = 5.0


@dataclass(kw_only=True, slots=True)
class Wait:
    """One wait for one thing."""

    #: What is waited for.
    name: str
    #: Alias of the database that it happens in.
    using: str
    #: Time of ``time.monotonic()`` at which to give up, or none.
    deadline: float | None
    #: Seconds for which the database may be out of reach, where the caller says.
    limit: float | None
    #: What may know earlier than a pause ends that it is worth looking again.
    guard: Guard | None = None
    started: float = field(default_factory=monotonic)
    #: Since when the database has given nothing but errors.
    _unreachable_since: float | None = None
    _next_report: float = 0.0
    _over_in: float | None = None
    #: When the last look began, where it failed.
    _failing_since: float | None = None
    #: Seconds that the last look took, and the shorter one of the last two.
    _last_look: float = 0.0
    _look: float = 0.0
    #: Whether anything was in the way.
    has_paused: bool = False

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return monotonic() - self.started

    @property
    def patience(self) -> float:
        """Seconds for which the database may be out of reach, ``ONCE_STARTUP_TIMEOUT`` else."""
        return conf.startup_timeout() if self.limit is None else self.limit

    def pause(self, reason: str | Callable[[], str]) -> None:
        """Close this thread's connections and sleep for about a tenth of the wait so far.

        Longer where it took long to look, since then there is a crowd: who waits is connected for
        a hundredth of the time, or a tenth where that is more than a second, so that a herd does
        not get in the way of whom it waits for.

        Args:
            reason: who or what is in the way, as a sentence without its full stop, or what finds
                that out where it is said.

        Raises:
            TimedOut: the deadline has passed.

        """
        self._report(reason)
        if self._left() <= 0:
            why = reason() if callable(reason) else reason
            raise TimedOut(
                f"Gave up after {self.seconds:.1f} s: {why}. Let it finish and run this again; "
                "`manage.py once status` shows how everything stands."
            )
        self.answered()
        self._sleep()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A context for a look at the database, which does not outlast the deadline by much."""
        with self.timed(), database(self.using).answering(self.patience_left):
            yield

    @contextmanager
    def timed(self) -> Iterator[None]:
        """A context for a look: the longer that takes, the longer is the next pause."""
        began = self._failing_since = monotonic()
        before, self._last_look = self._last_look, 0.0
        self._look = 0.0  # of one that fails: it has a law of its own
        yield
        self._last_look, self._failing_since = monotonic() - began, None
        # One alone may be slow for a reason of its own; in a crowd, all are.
        self._look = min(before, self._last_look)

    @property
    def is_report_due(self) -> bool:
        """Whether the next pause tells people; that comes ever more rarely, too."""
        return self.seconds >= self._next_report

    @property
    def patience_left(self) -> float:
        """Seconds in which an answer has to come, so that the deadline is kept."""
        return min(PATIENCE, max(0.5, self._left()))

    def expect(self, seconds: float | None) -> None:
        """Have the next pause end soon after that many seconds, where the law is for longer."""
        self._over_in = seconds

    def answered(self) -> None:
        """Take note that the database answers."""
        self._unreachable_since = None

    def end(self) -> None:
        """Report that another process did what is waited for."""
        signals.waited.send_robust(None, name=self.name, waited=self.seconds)

    def survive(self, error: Exception) -> None:
        """Pause after an error that may pass, such as a refused connection.

        Raises:
            DatabaseUnavailable: such errors have come for longer than patience or deadline allow.

        """
        if self._unreachable_since is None:
            self._unreachable_since = self._failing_since or monotonic()
        lasted = monotonic() - self._unreachable_since
        reason = f"database {self.using!r} cannot be used: {one_line(error).rstrip('.?')}"
        self._report(reason)
        if lasted > self.patience or self._left() <= 0:
            advice = f" Check that it runs and that DATABASES[{self.using!r}] is right."
            raise DatabaseUnavailable(
                f"For {lasted:.1f} s, {reason}." + advice * (not isinstance(error, NoConnection))
            ) from error
        # Where there are more who wait than connections, to be refused is all that tells of it.
        self._look = 0.0
        self._sleep(max(0.5, min(10.0, self.seconds / 5)))

    def _left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - monotonic()

    def _report(self, reason: str | Callable[[], str]) -> None:
        if self.is_report_due:
            waited = self.seconds
            self._next_report = max(1.0, min(2 * waited, waited + 60))
            why = reason() if callable(reason) else reason
            signals.waiting.send_robust(None, name=self.name, reason=why, waited=waited)

    def _sleep(self, least: float = 0.05) -> None:
        self.has_paused = True
        # Of every database: routines that are done, or come later, may live in another one.
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()
        most = _MOST if self.guard is None else self.guard.longest_pause
        pause = max(
            least,
            min(most, self.seconds / 10),
            min(1.0, 100 * self._look),
            min(30.0, 10 * self._look),
        )
        pause *= random.uniform(0.5, 1.0)  # noqa: S311
        if self._over_in is not None:
            pause = min(pause, self._over_in + random.uniform(0.05, 0.5))  # noqa: S311
            self._over_in = None
        sleep = time.sleep if self.guard is None else self.guard.attend
        with interruption.heeded():
            sleep(max(0.0, min(pause, self._left())))
