"""SQLite: a lock file beside the database, which the operating system frees with its holder."""

import os
import socket
import threading
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

from django.db import OperationalError
from filelock import FileLock, SoftFileLock, Timeout

from once.databases.base import Database
from once.databases.lock import AdvisoryLock
from once.databases.transactions import TransactionState
from once.exceptions import AttemptLost, OnceError

#: Seconds between two tries of a waiter.
_ATTENTION = 0.05


class SQLite(Database):
    """SQLite, for one machine. A frozen holder is not evicted: it keeps the write lock as well."""

    is_server = False
    row_lock = ""
    conflicts = locked_errors = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
    read_only_errors = (8,)

    def lock(self, name: str, liveness: float) -> "SQLiteLock | MemoryLock":
        wrapper: Any = self.connection
        name = str(wrapper.settings_dict["NAME"])
        if wrapper.is_in_memory_db():
            return MemoryLock(name)
        if name.startswith("file:"):  # SQLite manual, "Uniform Resource Identifiers"
            name = unquote(urlsplit(name).path)
        return SQLiteLock(Path(name).resolve())

    def holder(self, name: str) -> str | None:
        with self.lock(name, 0) as lock:
            return None if lock.take() else lock.holder

    def statements(self) -> AbstractContextManager[None]:
        # As SQLite's autocommit does; it waits for a writer, as long as `timeout` says.
        return nullcontext()

    @contextmanager
    def beginning(self) -> Iterator[None]:
        # A deferred transaction that reads before it writes cannot wait for the write lock
        # (SQLite manual, "Transactions": SQLITE_BUSY).
        connection: Any = self.connection
        before, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
        try:
            yield
        finally:
            connection.transaction_mode = before

    def transaction(self) -> TransactionState:
        is_open = self.connection.connection.in_transaction
        return TransactionState.OPEN if is_open else TransactionState.NONE

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

    def mark_backend(self, name: str, key: Any = None) -> Any:
        return True  # BEGIN IMMEDIATE admits one writer

    def terminate_backend(self, name: str) -> int:
        return 0  # the lock file was free: no process is left whose transaction could be open

    def code(self, error: BaseException) -> int | None:
        code = getattr(error.__cause__ or error, "sqlite_errorcode", None)
        return None if code is None else code & 0xFF  # the primary result code

    def lacks_savepoint(self, error: BaseException) -> bool:
        return "no such savepoint" in str(error)  # which has no code of its own

    def is_lost(self, error: BaseException) -> bool:
        return self.code(error) in (14, *self.read_only_errors)  # SQLITE_CANTOPEN


class SingleLock(AdvisoryLock):
    """A lock of a whole database, which admits one writer anyway."""

    def acquire(self, within: float = inf) -> bool:
        is_taken = self.take()
        if is_taken:
            self.mark()
        return is_taken

    @abstractmethod
    def take(self) -> bool:
        """Take the lock, and note nowhere that this thread holds it."""

    @contextmanager
    def lent(self) -> Iterator[None]:
        self.release()
        yield
        if not self.acquire():
            raise AttemptLost(f"The lock of the database went to {self.holder} meanwhile.")


class SQLiteLock(SingleLock):
    """A lock on a file."""

    def __init__(self, path: Path) -> None:
        self.identity = self._path = path.with_name(f"{path.name}.once.lock")
        # Only users that may write to the database may open the file, because a user that may read
        # it may lock it, and so block every run.
        writers = (path.stat().st_mode if path.exists() else 0o644) & 0o222
        self._lock = FileLock(self._path, mode=writers | writers << 1, thread_local=False)

    def mark(self) -> None:
        super().mark()
        with suppress(OSError):  # because the name of the holder is only for people to read
            self._path.write_text(f"{socket.gethostname()} (pid {os.getpid()})\n")

    def take(self) -> bool:
        if not self._path.parent.is_dir():  # which filelock would make; SQLite raises the same
            raise OperationalError(
                f"unable to open database file: there is no directory {self._path.parent}"
            )
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

    def wait(self, seconds: float) -> bool:
        # Because asking is only a call of the operating system, every waiter asks often.
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            time.sleep(min(left, _ATTENTION))
            if not self.is_owned and self.take():
                self.release()
                return True
        return False

    def release(self) -> None:
        self.unmark()
        self._lock.release(force=True)


class MemoryLock(SingleLock):
    """A lock within the process: no other process can share an in-memory database."""

    holder = "another thread"
    _locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __init__(self, name: str) -> None:
        self.identity = name
        self._lock = self._locks[name]
        self._is_taken = False

    def take(self) -> bool:
        self._is_taken = self._lock.acquire(blocking=False)
        return self._is_taken

    def release(self) -> None:
        if self._is_taken:
            self.unmark()
            self._is_taken = False
            self._lock.release()
