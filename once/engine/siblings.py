"""Waiters of one host and user that wait for one lock: one of them asks, and each hears the end.

They share an empty file. A waiter that is about to look marks the time in it, and its siblings put
off their own looks. The process that finds, or makes, an end of the wait deletes the file, because
each waiter has it open, and sees that it has no name any more.

The file is believed in nothing. It moves looks only: a waiter goes on by the record in the database
alone. Where a sibling is frozen or killed, its marks end, and the next waiter looks. Where the file
lies (two hosts in containers share it, and wait for different servers), a waiter still looks
by itself, now and then. Where there can be no file, each waiter asks as if it were alone.
"""

import hashlib
import os
import random
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from once.databases.lock import AdvisoryLock
from once.databases.standby import ATTENTION

#: Seconds that the pauses of a host grow to; and those of a look which mean that many hosts look.
_LONGEST = 5.0
_CROWDED = 0.1

#: Seconds after which a waiter looks, whatever its siblings do. A crowd that looks so rarely costs
#: the server next to nothing.
_ALONE = 20.0

#: Seconds of the shortest pause beside siblings, in which a busy machine lets them mark the file.
_LEAST = 0.2

#: Seconds over which siblings spread their looks after the news: for each of them, and at most.
#: There may not be a connection for all of them at once, and each keeps it for about so long.
_EACH = 0.004
_LONGEST_RUSH = 2.0


class Siblings:
    """The siblings of one waiter, as their file shows them."""

    def __init__(self) -> None:
        #: Time of the news that the wait may be over, if they ended the last pause.
        self.told_at: float | None = None
        #: Descriptor of the file.
        self._file: int | None = None
        #: Time of the last mark that this waiter saw.
        self._marked = 0

    @property
    def are_joined(self) -> bool:
        """True if this waiter takes turns with its siblings."""
        return self._file is not None

    def longest_pause(self, lock: AdvisoryLock, look: float) -> float:
        """Return the seconds that pauses grow to where a look takes so many."""
        return _LONGEST if self.are_joined and look < _CROWDED else lock.longest_pause

    def join_or_leave(self, lock: AdvisoryLock | None) -> None:
        """Take turns with the siblings that wait for a lock, as far as possible; or with none."""
        if lock is None:
            self.leave()
        elif self._file is None and lock.shared_key:
            with suppress(OSError):
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
                self._file = os.open(_path(lock.shared_key, is_made=True), flags, 0o600)
                os.write(self._file, b".")  # its size tells how many they are
                self._marked = os.fstat(self._file).st_mtime_ns

    def leave(self) -> None:
        """Close the file. Harmless where there is none."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def wait(
        self,
        lock: AdvisoryLock,
        pause: float,
        most: float,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Sleep until it is this waiter's turn to look.

        Args:
            lock: the lock, whose own session may notice first that it is free.
            pause: seconds since the last look of a sibling.
            most: seconds until the deadline.
            meanwhile: is called again and again.

        """
        self.told_at = None
        if self._file is None:
            lock.wait(pause)
            return
        now = monotonic()
        end = now + min(most, _ALONE * random.uniform(0.5, 1.0))  # noqa: S311
        turn = now + pause
        while (left := min(turn, end) - monotonic()) > 0 and not lock.wait(min(left, ATTENTION)):
            try:
                found = os.fstat(self._file)
            except OSError:  # of a network's file system
                self.leave()
                lock.wait(left)
                return
            if not found.st_nlink:
                self.told_at = monotonic()
                self.leave()
                rush = min(_LONGEST_RUSH, found.st_size * _EACH) * random.random()  # noqa: S311
                time.sleep(max(0.0, min(rush, end - monotonic())))
                return
            meanwhile()
            if found.st_mtime_ns != self._marked:
                self._marked = found.st_mtime_ns
                turn = monotonic() + max(pause, _LEAST)
            if lock.is_asking:
                self._mark(self._file)
        self._mark(self._file)

    def tell(self, lock: AdvisoryLock) -> None:
        """Delete the file, so that all siblings look at once."""
        with suppress(OSError):
            if lock.shared_key:
                _path(lock.shared_key).unlink()

    def _mark(self, file: int) -> None:
        with suppress(OSError):
            os.utime(file)
            self._marked = os.fstat(file).st_mtime_ns


def _path(key: str, *, is_made: bool = False) -> Path:
    """Return the path of the file for a key, in a directory of this user alone.

    Raises:
        OSError: there is no such directory, or another user has a right to it.

    """
    if not hasattr(os, "geteuid"):  # Windows, which does not delete an open file
        raise PermissionError("no users")
    directory = Path(os.environ.get("TMPDIR") or "/tmp", f"once-{os.geteuid()}")  # noqa: S108
    if is_made:
        directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} is not this user's alone")
    return directory / hashlib.sha256(key.encode()).hexdigest()[:32]
