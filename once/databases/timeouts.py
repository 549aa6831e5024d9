"""Cuts a connection off from which no answer comes: a server may hang, a pooler be full."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from django.db import Error, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["expected", "rest", "within"]


@contextmanager
def expected(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    """A context in which an open connection ends after that many seconds, by its socket.

    A pooler that has not lent a server connection yet would pass on no cancel request.

    Raises:
        django.db.OperationalError: there was no answer.

    """
    line = _line(connection)
    if line is None:
        yield
        return
    with line:
        _watch.add(line, seconds)
        try:
            yield
        except Exception as error:
            if _watch.remove(line):
                raise
            raise OperationalError(
                f"No answer for {seconds:.1f} s. A pooler may have no connection to lend (see that "
                "its pool is larger than what holds connections for long), a table may be locked, "
                "or the server hangs"
            ) from (error.__cause__ if isinstance(error, Error) else error)  # what the driver says
        finally:
            _watch.remove(line)


class _Watch:
    """One thread that cuts what is due. It ends where nothing is to be watched any more."""

    def __init__(self) -> None:
        self._begin()
        # The thread stays behind, and what it may have locked.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[socket.socket, float] = {}
        self._wakes_at: float | None = None
        self._thread: threading.Thread | None = None

    def add(self, line: socket.socket, seconds: float) -> None:
        """Cut a line after that many seconds."""
        due = monotonic() + seconds
        with self._changed:
            self._due[line] = due
            if self._wakes_at is None:
                self._wakes_at = due
                self._thread = threading.Thread(target=self._run, name="once answers", daemon=True)
                self._thread.start()
            elif due < self._wakes_at:
                self._changed.notify()

    def remove(self, line: socket.socket) -> bool:
        """Leave a line alone from now on; whether it was not cut, nor removed before."""
        with self._changed:
            return self._due.pop(line, None) is not None

    def rest(self) -> None:
        """End the thread, unless somebody else needs it."""
        with self._changed:
            thread = self._thread
            if thread is None or self._due:
                return
            self._changed.notify()
        thread.join(timeout=0.1)  # or somebody else needs it by now

    def _run(self) -> None:
        with self._changed:
            while self._due:
                now = monotonic()
                for line in [line for line, due in self._due.items() if due <= now]:
                    del self._due[line]
                    with suppress(OSError):
                        line.shutdown(socket.SHUT_RDWR)
                # What is removed before then wakes nobody: most answers come at once.
                self._wakes_at = min(self._due.values(), default=now)
                self._changed.wait(self._wakes_at - now)
            self._wakes_at = self._thread = None


_watch = _Watch()


def rest() -> None:
    """Leave no thread behind: the process may be about to fork."""
    _watch.rest()


def _line(connection: Any) -> socket.socket | None:
    """The socket of a connection; none where that is broken, as a statement finds out at once."""
    try:
        # By a number of its own, which cannot come to be that of another connection meanwhile.
        return socket.socket(fileno=os.dup(connection.connection.fileno()))
    except (OSError, connection.Database.Error):
        return None


def within(seconds: float) -> Callable[..., Any]:
    """What ``execute_wrapper`` takes to have an answer expected to each statement."""

    def execute_expecting(
        execute: Callable[[str, Any, bool, dict[str, Any]], Any],
        sql: str,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        with expected(context["connection"], seconds):
            return execute(sql, params, many, context)

    return execute_expecting
