"""Cut a connection off from which no answer comes: a server may hang, a pooler be full."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeAlias

from django.db import Error, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from once import conf
from once.databases.base import Context, Execute


@contextmanager
def expected(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    """End an open connection, by its socket, if this context lasts longer than that: an error.

    Because a pooler that has not lent a server connection yet passes on no cancel request.
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
                f"No answer for {seconds:.1f} s. The server hangs, a table is locked, or a pooler, "
                "where one stands before the server, has no connection to lend"
            ) from (error.__cause__ if isinstance(error, Error) else error)  # the driver's error
        finally:
            _watch.remove(line)


class _Watch:
    """A thread that cuts due connections, and ends when it has nothing to watch.

    A timer for each question would cost 200 µs of CPU, thirty times as much.
    """

    def __init__(self) -> None:
        self._begin()
        # Because the thread does not survive a fork, but a lock that it holds does.
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
        """Leave a line alone from now on; return True if it was neither cut nor removed before."""
        with self._changed:
            return self._due.pop(line, None) is not None

    def rest(self) -> None:
        """Leave no thread behind, because the process may be about to fork; unless it is needed."""
        while True:
            with self._changed:
                thread = self._thread
                if thread is None or self._due:
                    return
                self._changed.notify()
            thread.join(timeout=0.1)  # on a loaded machine it takes longer

    def _run(self) -> None:
        with self._changed:
            while self._due:
                now = monotonic()
                for line in [line for line, due in self._due.items() if due <= now]:
                    del self._due[line]
                    with suppress(OSError):
                        line.shutdown(socket.SHUT_RDWR)
                # Removing a line wakes no thread, because most answers come at once.
                self._wakes_at = min(self._due.values(), default=now)
                self._changed.wait(self._wakes_at - now)
            self._wakes_at = self._thread = None


_watch = _Watch()
rest = _watch.rest


#: An option of a socket, by its level and number.
SocketOption: TypeAlias = tuple[int, int]


#: Options of libpq that say when a silent network is given up: the project's, where it has any.
_KEEPS_ALIVE = {
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
}


def keep_alive(connection: BaseDatabaseWrapper) -> dict[SocketOption, int]:
    """Have an open connection end if the network has lost everything for the liveness timeout.

    Because an address translator on the way forgets idle connections, it sends a probe after a
    third of that. Does nothing where no network is on the way, or the project has decided.

    Returns:
        The options of its socket as they were before, for :func:`restore`.

    """
    if _KEEPS_ALIVE & connection.settings_dict["OPTIONS"].keys():
        return {}
    return _exchange(connection, _probes)


def restore(connection: BaseDatabaseWrapper, options: dict[SocketOption, int]) -> None:
    """Set options of a connection's socket back to what :func:`keep_alive` returned."""
    if options:
        _exchange(connection, lambda: options)


def _probes() -> dict[SocketOption, int]:
    seconds = conf.liveness_timeout()
    third = max(1, round(seconds / 3))
    # tcp(7). Not every system has all of them.
    options = {
        "TCP_KEEPIDLE": third,
        "TCP_KEEPINTVL": third,
        "TCP_KEEPCNT": 2,
        "TCP_USER_TIMEOUT": round(seconds * 1000),
    }
    known = {
        (socket.IPPROTO_TCP, getattr(socket, name)): value
        for name, value in options.items()
        if hasattr(socket, name)
    }
    return {(socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1, **known}


def _exchange(
    connection: BaseDatabaseWrapper, options: Callable[[], Mapping[SocketOption, int]]
) -> dict[SocketOption, int]:
    """Set options of a connection's socket, if a network is on the way; return what they were."""
    line = _line(connection)
    if line is None:
        return {}
    with line, suppress(OSError):  # it is broken, as a statement finds out
        if line.family in (socket.AF_INET, socket.AF_INET6):
            wanted = options()
            before = {option: line.getsockopt(*option) for option in wanted}
            for option, value in wanted.items():
                line.setsockopt(*option, value)
            return before
    return {}


def _line(connection: Any) -> socket.socket | None:
    """Return the socket of a connection, or ``None`` if it is broken, as a statement finds out."""
    if connection.connection is None:
        return None
    try:
        # By a number of its own, which cannot come to be that of another connection meanwhile.
        return socket.socket(fileno=os.dup(connection.connection.fileno()))
    except (OSError, connection.Database.Error):
        return None


def within(
    execute: Execute, sql: str, params: Any, many: bool, context: Context, *, seconds: float
) -> Any:
    """Give a statement that many seconds for its answer (execute_wrapper of Django)."""
    with expected(context["connection"], seconds):
        return execute(sql, params, many, context)
