"""What there is to know of a MySQL or MariaDB, by asking it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from once.findings import Finding, Level

__all__ = ["examine", "place", "refusals"]

_VARIABLES = (
    "group_replication_single_primary_mode",
    "innodb_flush_log_at_trx_commit",
    "read_only",
    "super_read_only",
    "wsrep_on",
)


def place(connection: BaseDatabaseWrapper) -> str:
    """The server and database that a session is on."""
    [(host, port, name)] = _rows(connection, "SELECT @@hostname, @@port, DATABASE()")
    return f"{name} on {host}:{port}"


def examine(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    """What is good to know of a server, or wrong with it."""
    finding = partial(Finding, database=connection.alias)
    driver: Any = connection
    version = ".".join(map(str, connection.get_database_version()))
    yield finding(id="server", message=f"{connection.display_name} {version}.")
    driver_version = ".".join(map(str, driver.Database.version_info[:3]))
    yield finding(id="driver", message=f"mysqlclient {driver_version}.")
    values = _variables(connection)
    if "ON" in (values.get("super_read_only"), values.get("read_only")):
        # Some users may write all the same, and what follows finds that out.
        is_sure = values.get("super_read_only") == "ON"
        yield finding(
            id="read-only" if is_sure else "replica",
            level=Level.FAULT if is_sure else Level.WARNING,
            message="The server is read-only, as a replica is.",
            hint="Point HOST at the primary.",
        )
        if is_sure:
            return
    yield from refusals(connection)
    is_flushed = values["innodb_flush_log_at_trx_commit"] == "1"
    yield finding(
        id="durability",
        level=Level.OK if is_flushed else Level.WARNING,
        message=f"innodb_flush_log_at_trx_commit is {values['innodb_flush_log_at_trx_commit']}"
        + ("." if is_flushed else ": what is recorded may be gone after a crash of the machine."),
        hint="" if is_flushed else "Set it to 1 in the server's configuration.",
    )


def refusals(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    """What makes the promise impossible to keep here: each a fault."""
    fault = partial(Finding, database=connection.alias, level=Level.FAULT)
    values = _variables(connection)
    if values.get("wsrep_on") == "ON":
        yield fault(
            id="cluster",
            message="It is a node of a Galera cluster: each of them grants the same lock.",
            hint="Keep routines in a database of a single server, by using=.",
        )
    if values.get("group_replication_single_primary_mode") == "OFF":
        yield fault(
            id="cluster",
            message="Its group has several primaries: each of them grants the same lock.",
            hint="Switch the group to a single primary.",
        )
    tables = _rows(
        connection,
        "SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
        "AND TABLE_NAME IN ('once_attempt', 'once_completion') AND ENGINE <> 'InnoDB'",
    )
    for table, engine in tables:
        yield fault(
            id="engine",
            message=f"The table {table} is kept by {engine}: only InnoDB rolls back as is needed.",
            hint=f"ALTER TABLE {table} ENGINE = InnoDB; and so for the tables of your models.",
        )


def _variables(connection: BaseDatabaseWrapper) -> dict[str, str]:
    names = ", ".join(f"'{name}'" for name in _VARIABLES)
    return dict(_rows(connection, f"SHOW VARIABLES WHERE Variable_name IN ({names})"))


def _rows(connection: BaseDatabaseWrapper, sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
