"""The pace of batches: their size, and the rest between them. People and throttles change it."""

import time
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from once import conf
from once.engine import shutdown
from once.exceptions import BodyError, Paused
from once.record import recorder, wishes
from once.record.wishes import Pace
from once.routines.base import Throttle
from once.routines.contexts import call_apart

if TYPE_CHECKING:
    from once.engine.attempt import Work

__all__ = ["Pacing"]

#: Seconds between two looks at what people want, while a routine rests.
_LOOK = 1.0
#: A share of the largest batch, of which the first batch is, where a batch should take some time.
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

    @property
    def size(self) -> int:
        """Items that the next batch has, at most."""
        size = self._pace.batch_size
        if self._pace.batch_seconds is None:
            return size
        self._fitting = min(self._fitting or size * _FIRST, size)
        return max(1, int(self._fitting))

    def took(self, items: int, seconds: float) -> None:
        """Take note of the time of a batch, and have the next take the time that is wanted."""
        if self._pace.batch_seconds is not None:
            fitting = items * self._pace.batch_seconds / max(seconds, 0.001)
            # Because a single batch may be slow by chance, sizes change by no more than twice.
            self._fitting = max(1.0, items / 2, min(fitting, items * 2))

    def heed(self) -> None:
        """Take the pace that people want, as of the work transaction in hand.

        Raises:
            Paused: a person paused the routine.

        """
        if self._work.last_wish != self._heeded:
            self._take()

    def rest(self) -> None:
        """Rest until the next batch is due, and look each second what people and throttles want.

        Raises:
            Paused: a person paused the routine.

        """
        with shutdown.heeded():  # where there is no rest, too
            began = monotonic()
        here = self._work.here
        while wait := max(self._pace.rest - (monotonic() - began), self._throttled(), 0.0):
            with shutdown.heeded():
                here.connection.close()  # which a server may end while it is idle
                time.sleep(min(wait, _LOOK))
            self._work.lock.check()
            with here.statements():
                self._take()

    def _take(self) -> None:
        name = self._work.routine.name
        wish = wishes.last(self._work.here.using, [name]).get(name)
        if wish is not None and wish.is_paused:
            raise Paused(wishes.paused_by(wish))
        self._heeded = wish.number if wish else 0
        self._pace = wishes.pace(self._work.routine, wish)

    def _throttled(self) -> float:
        """Return the seconds of the throttle that says most, and record which it is."""
        answers = [(self._ask(each), _named(each)) for each in self._work.routine.throttle]
        seconds, name = max(answers, default=(0.0, ""))
        reason = f"{name} says {seconds:g} s" if seconds else ""
        if reason != self._work.attempt.throttled:
            recorder.throttled(self._work.attempt, reason)
        return seconds

    def _ask(self, throttle: Throttle) -> float:
        with self._work.projects_own():
            seconds: object = call_apart(partial(throttle, self._work.run))
        if not conf.is_seconds(seconds, 0):
            raise BodyError(
                f"The throttle {_named(throttle)} returned {seconds!r:.100}, which is no number of "
                f"seconds from 0 to {conf.DAY:g}. Have it return 0 where nothing is in the way."
            )
        return seconds


def _named(throttle: Throttle) -> str:
    return str(getattr(throttle, "__name__", throttle))
