"""Ends a process by SIGKILL at a step that a test chose: before a statement, or a COMMIT.

``TEST_KILL=7`` names the seventh step of the process' first thread. No other place is different to
a database. A process that comes to its end prints how many steps it had.
"""

import atexit
import os
import signal
import sys
import threading
from itertools import count
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver

__all__: list[str] = []

_numbers = count(1)
_last = 0
_fatal = int(os.environ.get("TEST_KILL", "0"))
_django_commit = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]


def _step(what: str) -> None:
    global _last
    if threading.current_thread() is not threading.main_thread():
        return
    _last = next(_numbers)
    if _last == _fatal:
        sys.stderr.write(f"\nKilled before step {_last}: {' '.join(what.split())[:100]}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def _execute(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    _step(sql)
    return execute(sql, params, many, context)


def _commit(self: BaseDatabaseWrapper) -> Any:
    _step("COMMIT")
    return _django_commit(self)


@receiver(connection_created)
def _count_statements(connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    if _execute not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, _execute)  # those behind it come and go


@atexit.register
def _tell() -> None:
    sys.stderr.write(f"steps={_last}\n")


BaseDatabaseWrapper._commit = _commit  # type: ignore[attr-defined]
