"""Sets the ``search_path`` for each cursor, by a variable of the context or of the thread."""

import os
import threading
from contextvars import ContextVar
from typing import Any

from django.db.backends.postgresql import base

__all__ = ["DatabaseWrapper", "activate"]

_of_context: ContextVar[str] = ContextVar("schema", default="public")
_of_thread = threading.local()
_IS_OF_THREAD = os.environ.get("TEST_SCHEMA_OF") == "thread"


def activate(schema: str) -> None:
    """Have all that follows here see a schema."""
    if _IS_OF_THREAD:
        _of_thread.schema = schema
    else:
        _of_context.set(schema)


def _active() -> str:
    if _IS_OF_THREAD:
        return getattr(_of_thread, "schema", "public")
    return _of_context.get()


class DatabaseWrapper(base.DatabaseWrapper):
    """One of PostgreSQL."""

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)  # type: ignore[misc]
        cursor.execute(f"SET search_path = {_active()}")
        return cursor
