"""Lends as SQLAlchemy's QueuePool does: within a time, or with an error of its own."""

import os
import threading
from typing import Any

from django.db.backends.postgresql import base

__all__ = ["DatabaseWrapper", "PoolTimeout"]

_free = threading.Semaphore(int(os.environ.get("TEST_POOL_SIZE", "1")))
_SECONDS = float(os.environ.get("TEST_POOL_TIMEOUT", "30"))


class PoolTimeout(Exception):
    """No connection was given back in time."""


class DatabaseWrapper(base.DatabaseWrapper):
    """One of PostgreSQL."""

    def get_new_connection(self, conn_params: Any) -> Any:
        if not _free.acquire(timeout=_SECONDS):
            raise PoolTimeout(f"QueuePool limit reached, connection timed out after {_SECONDS} s")
        try:
            return super().get_new_connection(conn_params)
        except BaseException:
            _free.release()
            raise

    def _close(self) -> None:
        if self.connection is not None:
            super()._close()  # type: ignore[misc]
            _free.release()
