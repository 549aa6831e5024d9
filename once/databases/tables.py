"""The tables of the record, as the project names them: it may give every table a prefix."""

from collections.abc import Sequence
from typing import Any

from django.apps import apps

#: The models whose rows are each of a routine, and all that have a table.
OF_ROUTINES = ("attempt", "completion", "anchor", "wish", "faileditem")
MODELS = (*OF_ROUTINES, "worker")


def name(model: str) -> str:
    """Return the name of the table of a model of this package."""
    table: str = apps.get_registered_model("once", model)._meta.db_table
    return table


def quoted(connection: Any, model: str) -> str:
    """Return the same as SQL takes it."""
    table: str = connection.ops.quote_name(name(model))
    return table


def migrations() -> str:
    """Return the name of the table in which Django records the migrations that it applied."""
    from django.db.migrations.recorder import MigrationRecorder  # which most processes do without

    table: str = MigrationRecorder.Migration._meta.db_table
    return table


def grants(role: str) -> str:
    """Return the grants that let a role read and write the record."""
    first, *others = map(name, MODELS)
    return (
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {first} TO {role}; the same on "
        f"{', '.join(others)}, and SELECT ON {migrations()}."
    )


def ask(connection: Any, sql: str, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    """Execute a statement that answers rows, and return them."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def execute(connection: Any, sql: str, params: Sequence[Any] | None = None) -> None:
    """Execute a statement that answers no rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
