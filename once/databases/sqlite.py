"""SQLite: a lock file beside the database, which the operating system frees with its holder."""

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock, SoftFileLock, Timeout

from once.databases.base import Database
from once.exceptions import OnceError
from once.guards import ATTENTION, Guard

__all__ = ["SQLite"]

_BUSY = 5
_LOCKED = 6
_CANNOT_OPEN = 14


class SQLite(Database):
    """SQLite, for one machine. A frozen holder is not evicted: it keeps the write lock as well."""

    is_server = False
    row_lock = ""

    def guard(
        self, name: str, liveness: float, before: Guard | None = None
    ) -> "FileGuard | MemoryGuard":
        if before is not None:
            before.release()
        wrapper: Any = self.connection
        name = str(wrapper.settings_dict["NAME"])
        if wrapper.is_in_memory_db():
            return MemoryGuard(name)
        return FileGuard(Path(_path(name)).resolve())

    def holder(self, name: str) -> str | None:
        with self.guard(name, 0) as guard:
            return None if guard.take() else guard.holder

    def aware(self, moment: datetime) -> datetime:
        # Its clock tells UTC, whatever zone Django reads it in.
        return moment.replace(tzinfo=UTC)

    def statements(self) -> AbstractContextManager[None]:
        # As SQLite's autocommit does; it waits for a writer, as long as `timeout` says.
        return nullcontext()

    @contextmanager
    def work(self) -> Iterator[None]:
        # A deferred transaction that reads before it writes cannot wait for the write lock
        # (SQLite manual, "Transactions": SQLITE_BUSY).
        connection: Any = self.connection
        connection.ensure_connection()
        before, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
        try:
            with super().work():
                connection.transaction_mode = before
                yield
        finally:
            connection.transaction_mode = before

    @contextmanager
    def migration(self) -> Iterator[None]:
        # The schema editor wants foreign keys unchecked, which a transaction cannot change.
        connection = self.connection
        connection.disable_constraint_checking()
        try:
            with super().migration():
                yield
        finally:
            connection.enable_constraint_checking()

    def lock_work(self, name: str) -> bool:
        return True  # BEGIN IMMEDIATE admits one writer

    def end_work(self, name: str) -> int:
        return 0  # the lock file was free: no process is left whose transaction could be open

    def is_conflict(self, error: BaseException) -> bool:
        return _code(error) in (_BUSY, _LOCKED)

    def is_locked(self, error: BaseException) -> bool:
        return self.is_conflict(error)

    def is_lost(self, error: BaseException) -> bool:
        return _code(error) == _CANNOT_OPEN


class FileGuard(Guard):
    """A lock on a file; one for the whole database, which admits one writer anyway."""

    def __init__(self, path: Path) -> None:
        self.identity = self._path = path.with_name(f"{path.name}.once.lock")
        # Whoever may write to the database may lock it.
        mode = path.stat().st_mode & 0o666 if path.exists() else 0o644
        self._lock = FileLock(self._path, mode=mode, thread_local=False)

    def acquire(self, within: float = inf) -> bool:
        if not self.take():
            return False
        self.mark()
        with suppress(OSError):  # it is locked; who did it, people only want to know
            self._path.write_text(f"{socket.gethostname()} (pid {os.getpid()})\n")
        return True

    def take(self) -> bool:
        """Take the lock without saying who holds it."""
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            with suppress(OSError):
                self.holder = self._path.read_text(errors="replace").strip() or self.holder
            return False
        except OSError as error:
            raise OnceError(
                f"The lock file beside the SQLite database cannot be used: {error}. This process "
                f"must be able to write to {self._path} and its directory."
            ) from error
        if isinstance(self._lock, SoftFileLock):
            # filelock falls back to a file that outlives a killed holder.
            self.release()
            raise OnceError(
                f"The file system of {self._path} has no file locks. Keep the SQLite database on a "
                "local disk."
            )
        return True

    def attend(self, seconds: float) -> None:
        # Asking costs no more than a call of the operating system, so that everybody may often.
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            time.sleep(min(left, ATTENTION))
            if not self.is_marked and self.take():
                self.release()
                return

    def release(self) -> None:
        self.unmark()
        self._lock.release(force=True)


class MemoryGuard(Guard):
    """A lock within the process, which is all that an in-memory database can be shared by."""

    _locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __init__(self, name: str) -> None:
        self.identity = name
        self._lock = self._locks[name]
        self._held = False
        self.holder = "another thread"

    def acquire(self, within: float = inf) -> bool:
        if self.take():
            self.mark()
        return self._held

    def take(self) -> bool:
        """Take the lock."""
        self._held = self._lock.acquire(blocking=False)
        return self._held

    def release(self) -> None:
        if self._held:
            self.unmark()
            self._held = False
            self._lock.release()


def _path(name: str) -> str:
    # SQLite takes a URI as well (SQLite manual, "Uniform Resource Identifiers").
    return unquote(urlsplit(name).path) if name.startswith("file:") else name


def _code(error: BaseException) -> int | None:
    cause = error.__cause__ or error
    code = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # the primary result code
