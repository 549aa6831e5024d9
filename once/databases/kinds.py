"""The kinds of database that have a lock, by the vendor of a Django connection."""

from functools import cache

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from once.databases.base import Database

#: Vendor of a Django connection to the class that serves it; "mysql" is MariaDB's as well.
SUPPORTED = {
    "mysql": "once.databases.mysql.MySQL",
    "postgresql": "once.databases.postgresql.PostgreSQL",
    "sqlite": "once.databases.sqlite.SQLite",
}


_imported = cache(import_string)


def database(using: str) -> Database:
    """Return the database of this alias, whose kind and driver must be supported."""
    connection = connections[using]
    kind = of_kind(connection)
    if kind is None:
        raise ImproperlyConfigured(
            f"Database {using!r} is of the kind {connection.vendor!r}, which has no lock. "
            f"Supported: {', '.join(SUPPORTED)}."
        )
    if misfit := kind.misfit(connection):
        problem, remedy = misfit
        raise ImproperlyConfigured(f"Database {using!r}: {problem}. {remedy}")
    return kind(using)


def of_kind(connection: BaseDatabaseWrapper) -> type[Database] | None:
    """Return the class for a connection, whatever its driver is, if its kind is supported."""
    name = SUPPORTED.get(connection.vendor)
    return None if name is None else _imported(name)


def is_supported(using: str) -> bool:
    """True if routines can run in the database of this alias."""
    connection = connections[using]
    kind = of_kind(connection)
    return kind is not None and kind.misfit(connection) is None
