"""The standby of a lock: the waiter that follows the holder at once: other waiters ask rarely.

The standby polls, each time in a new transaction. In a second that takes 10 ms of a processor of
the server, and 21 ms of the standby's own. Every 10 ms it would be 19 and 33 ms, every 50 ms 4 and
10 ms. A statement that blocks for a second instead would cost the server 0.4 ms, for an equal
takeover. It was left out for what it costs elsewhere:

- CREATE INDEX CONCURRENTLY in the holder would wait for the standby's snapshot: 0.85 s instead of
  0.02 s, where an old transaction would keep it for ever.
- MySQL's client blocks, and with it all greenlets of a gevent worker. Polling there, too, would
  leave two mechanisms.
- SIGTERM would have to wait for the statement, or connect again to cancel it.
- The server would log an error a second, and its monitors would see a blocked session.
"""

import enum
import threading
from collections.abc import Callable

#: Seconds between two questions of the standby, unless its server is slow.
ATTENTION = 0.02


class Place(enum.Enum):
    """The part of a session that tried a lock."""

    HOLDER = "holder"
    STANDBY = "standby"
    NONE = "none"


class Standby:
    """The place of a lock's standby, a second lock, as a session that has tried both sees it."""

    def __init__(self, name: str) -> None:
        #: Name of the lock.
        self.name = name
        #: True if this process is the standby, or got the lock as the standby.
        self.has_place = False
        #: True if the waiter was told the news: no reason any more not to pause.
        self.is_told = False
        #: Set once the standby has the lock, or has lost its place.
        self._turn = threading.Event()

    @property
    def is_due(self) -> bool:
        """True if there is news for the standby."""
        return self._turn.is_set()

    @property
    def is_asking(self) -> bool:
        """True if the session is to ask for the lock again and again."""
        return self.has_place and not self.is_due

    def wait(self, seconds: float) -> bool:
        """Sleep for that long, or return True once there is news."""
        return self._turn.wait(seconds)

    # In the session's thread:

    def enter(self, take: Callable[[str], Place]) -> Place:
        """Try the lock, and be its standby if it is refused and the place is free."""
        place = take(self.name)
        self.has_place = place is Place.STANDBY
        return place

    def ask(self, take: Callable[[str], Place]) -> None:
        """Try the lock again, and note what the waiter is to be told."""
        try:
            place = take(self.name)
        except Exception:
            self._turn.set()
            raise
        if place is not Place.STANDBY:
            self.has_place = place is Place.HOLDER  # until the waiter takes it over
            self._turn.set()
