"""The pace of batches: their size, and the rest between them. People and throttles change it."""

import time
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from django.db import Error

from once import conf, signals
from once.databases import refuse_left_open
from once.engine import shutdown
from once.exceptions import LockLost, Paused, ThrottleError
from once.record import recorder, wishes
from once.record.wishes import Pace
from once.routines.base import Throttle
from once.routines.contexts import call_apart
from once.text import inline, one_line

if TYPE_CHECKING:
    from once.engine.attempt import Work


#: Seconds between two looks at what people and throttles want, while a routine rests.
_LOOK = 1.0
#: Seconds in which other writers get in where a database has one at a time.
_GAP = 0.15
#: The share of the largest batch that the first one is, where batches should take some time.
_FIRST = 0.1


class Pacing:
    """The pace at which an attempt goes through its batches."""

    def __init__(self, work: "Work") -> None:
        self._work = work
        self._pace: Pace = wishes.pace(work.routine, None)
        #: Number of the wish by which it goes.
        self._heeded = 0
        #: Items that a batch may have to take as long as it should; 0 before the first.
        self._fitting = 0.0
        self._throttled_since: float | None = None
        #: When other writers last had time to get in.
        self._gave_way = monotonic()

    @property
    def size(self) -> int:
        """Items that the next batch has, at most."""
        size = self._pace.batch_size
        if self._pace.batch_seconds is None:
            return size
        return max(1, int(min(self._fitting or size * _FIRST, size)))

    def took(self, items: int, seconds: float) -> None:
        """Take note of the time of a batch, and have the next take the time that is wanted.

        A slow batch has the next be as much smaller at once. Because a batch may be fast by chance,
        sizes no more than double.
        """
        if self._pace.batch_seconds is not None:
            fitting = items * self._pace.batch_seconds / max(seconds, 0.001)
            self._fitting = max(1.0, min(fitting, items * 2))

    def heed(self) -> None:
        """Take the pace that people want, as of the work transaction in hand.

        Raises:
            Paused: a person paused the routine.

        """
        if self._work.last_wish != self._heeded:
            self._take()

    def rest(self) -> None:
        """Rest after a batch, and then wait for throttles, as :meth:`wait` does."""
        self._wait(began=monotonic())

    def wait(self) -> None:
        """Wait while a throttle is in the way, and look each second what people want.

        Raises:
            Paused: a person paused the routine.
            ThrottleError: a throttle failed.

        """
        self._wait(began=-inf)

    def _wait(self, *, began: float) -> None:
        here, wait = self._work.here, self._pace.rest - (monotonic() - began)
        is_due = wait <= 0 and monotonic() - self._gave_way > _LOOK
        if is_due and not (here.is_server or here.connection.in_atomic_block):
            # Because SQLite's writers do not queue: each looks again after 0.1 s at most.
            wait = _GAP
        while True:
            with shutdown.heeded():
                if wait > 0:
                    here.connection.close()  # which a server may end while it is idle
                    time.sleep(min(wait, _LOOK))
            self._work.lock.check()
            if wait > 0:
                with here.statements():
                    self._take()
                self._gave_way = monotonic()
            wait = self._pace.rest - (monotonic() - began)
            if wait <= 0 and (wait := self._throttled()) <= 0:
                return

    def _take(self) -> None:
        name = self._work.routine.name
        wish = wishes.last(self._work.here.using, [name]).get(name)
        if wish is not None and wish.is_paused:
            raise Paused(wishes.paused_by(wish))
        self._heeded = wish.number if wish else 0
        self._pace = wishes.pace(self._work.routine, wish)

    def _throttled(self) -> float:
        """Return the seconds of the throttle that says most, and record and tell which it is."""
        work = self._work
        if not work.routine.throttle:
            return 0.0
        answers = [(self._ask(each), _named(each)) for each in work.routine.throttle]
        refuse_left_open(work.here)
        seconds, name = max(answers)
        reason = f"{name} says {seconds:g} s" if seconds else ""
        if reason != work.attempt.throttled:
            recorder.throttled(work.attempt, reason)
        if not seconds:
            self._throttled_since = None
            return 0.0
        now = monotonic()
        self._throttled_since = self._throttled_since or now
        waited = now - self._throttled_since
        signals.throttled.send_robust(
            work.routine, attempt=work.attempt, reason=reason, waited=waited
        )
        return seconds

    def _ask(self, throttle: Throttle) -> float:
        try:
            with shutdown.heeded(), self._work.projects_own():
                seconds: object = call_apart(partial(throttle, self._work.run))
        except Exception as error:
            is_lost = isinstance(error, Error) and self._work.here.is_lost(error)
            if is_lost:
                self._work.here.connection.close()  # as after a batch, so that it is tried again
            if is_lost or isinstance(error, LockLost):
                raise  # because a connection's end, or run.check(), is no fault of the throttle
            raise ThrottleError(
                f"The throttle {_named(throttle)} failed. {one_line(error)}"
            ) from error
        if not conf.is_seconds(seconds, 0):
            raise ThrottleError(
                f"The throttle {_named(throttle)} returned {seconds!r:.100}, which is no number of "
                f"seconds from 0 to {conf.DAY:g}. Have it return 0 where nothing is in the way."
            )
        return seconds


def _named(throttle: Throttle) -> str:
    name = inline(str(getattr(throttle, "__name__", throttle)))[:200]
    return name.encode("ascii", "backslashreplace").decode()  # which every database takes
