"""Cuts a connection off from which no answer comes: a server may hang, a pooler be full."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import Error, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["expected", "within"]


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
    is_over = threading.Event()
    with line:

        def cut() -> None:
            is_over.set()
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:
            if not is_over.is_set():
                raise
            raise OperationalError(
                f"No answer for {seconds:.1f} s. A pooler may have no connection to lend (see that "
                "its pool is larger than what holds connections for long), a table may be locked, "
                "or the server hangs"
            ) from (error.__cause__ if isinstance(error, Error) else error)  # what the driver says
        finally:
            timer.cancel()
            timer.join()


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
