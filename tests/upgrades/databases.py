"""Where upgrades take place: databases that are copied, compared and dropped."""

import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psycopg

from tests.databases import create_database, drop_database
from tests.project import with_database
from tests.servers import database_url
from tests.upgrades.comparison import Row, Snapshot

__all__ = ["KINDS", "Database"]

#: Tables of the app whose rows belong to releases; each before those that it refers to.
_OF_RELEASES = ("store_stock", "store_order", "store_customer", "store_product")
#: Fields of a snapshot: no ids, since work that was undone leaves gaps; and no times.
_QUERIES = {
    "named": "SELECT app, name FROM django_migrations "
    "UNION SELECT app_label, model FROM django_content_type "
    "UNION SELECT model, codename FROM auth_permission AS p "
    "JOIN django_content_type AS t ON t.id = p.content_type_id ORDER BY 1, 2",
    "completions": "SELECT routine, version, scope_key FROM once_completion ORDER BY id",
    "attempts": "SELECT routine, number, state FROM once_attempt ORDER BY routine, number",
    "effects": "SELECT routine, item, origin FROM store_effect ORDER BY id",
}


class Database(ABC):
    """A database of the project."""

    #: A query for what its schema consists of.
    _schema: str

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name

    @property
    @abstractmethod
    def url(self) -> str:
        """Where processes connect to."""

    @abstractmethod
    def create(self) -> None:
        """Begin with nothing."""

    @abstractmethod
    def drop(self) -> None:
        """Leave nothing."""

    def copy(self, name: str) -> "Database":
        """Return a new database as this one is."""
        new = type(self)(self._directory, name)
        new.drop()
        self._copy_to(new)
        return new

    def snapshot(self) -> Snapshot:
        """Read all, from beside its processes."""
        with self._connect() as here:
            schema = here.execute(self._schema).fetchall()
            tables = sorted({table for table, *_ in schema if table.startswith("store_")})
            return Snapshot(
                schema=schema,
                rows={table: _rows(here, table) for table in tables if table != "store_effect"},
                **{name: here.execute(sql).fetchall() for name, sql in _QUERIES.items()},
            )

    def insert(self, rows: Iterable[tuple[str, Row]]) -> None:
        """Insert rows, each with its table."""
        with self._connect() as here:
            for table, row in rows:
                values = ", ".join(repr(value) for value in row.values())
                here.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})")
            here.commit()

    def delete(self, release: int) -> None:
        """Delete the rows of a release."""
        present = self.snapshot().rows
        with self._connect() as here:
            for table in _OF_RELEASES:
                if table in present:
                    here.execute(f"DELETE FROM {table} WHERE origin = {release}")
            here.commit()

    @abstractmethod
    def _copy_to(self, new: Any) -> None:
        """Make another database of this kind as this one is."""

    @abstractmethod
    def _connect(self) -> AbstractContextManager[Any]:
        """Return a context with a session in a transaction."""


class PostgreSQL(Database):
    """One on the server of the tests."""

    _schema = """
        SELECT table_name, 'column', column_name,
               concat_ws(' ', data_type, character_maximum_length, is_nullable, column_default)
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL
        SELECT conrelid::regclass::text, 'constraint', conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL
        SELECT tablename, 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        ORDER BY 1, 2, 3
    """

    @property
    def url(self) -> str:
        return with_database(database_url(), self._name)

    def create(self) -> None:
        create_database(self._name)

    def drop(self) -> None:
        drop_database(self._name)

    def _copy_to(self, new: "PostgreSQL") -> None:
        create_database(new._name, self._name)

    def _connect(self) -> AbstractContextManager[Any]:
        return psycopg.connect(self.url)


class SQLite(Database):
    """A file."""

    _schema = "SELECT tbl_name, type, name, sql FROM sqlite_master ORDER BY 1, 2, 3"

    @property
    def _path(self) -> Path:
        return self._directory / f"{self._name}.sqlite3"

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def create(self) -> None:
        self.drop()
        self._path.touch()

    def drop(self) -> None:
        for file in self._directory.glob(f"{self._name}.sqlite3*"):
            file.unlink()

    def _copy_to(self, new: "SQLite") -> None:
        shutil.copy(self._path, new._path)

    def _connect(self) -> AbstractContextManager[Any]:
        return closing(sqlite3.connect(self._path, timeout=30))


def _rows(here: Any, table: str) -> list[Row]:
    found = here.execute(f"SELECT * FROM {table} ORDER BY 1")
    columns = [column[0] for column in found.description]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


KINDS: dict[str, type[Database]] = {"postgresql": PostgreSQL, "sqlite": SQLite}
