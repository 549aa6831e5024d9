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
    is_over = threading.Event()

    def cut() -> None:
        is_over.set()
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as found:
            found.shutdown(socket.SHUT_RDWR)

    number = connection.connection.fileno()
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
            "its pool is larger than what holds connections for long), or the server hangs"
        ) from (error.__cause__ if isinstance(error, Error) else error)  # what the driver says
    finally:
        timer.cancel()
        timer.join()  # the number must not be another connection's when it cuts


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
