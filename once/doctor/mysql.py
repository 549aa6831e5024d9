"""The doctor's questions to a MySQL or MariaDB."""

from collections.abc import Iterator
from typing import Any

from once.databases import mysql_lock
from once.doctor.deployment import Deployment, Finding

_READ_ONLY = ("The server is read-only, as a replica is.", "Point HOST at the primary.")


def examine(deployment: Deployment) -> Iterator[Finding]:
    """Yield facts and faults of a server."""
    yield deployment.server()
    connection: Any = deployment.database.connection
    driver_version = ".".join(map(str, connection.Database.version_info[:3]))
    yield deployment.ok("driver", f"mysqlclient {driver_version}.")
    values = mysql_lock.variables(
        connection, "innodb_flush_log_at_trx_commit", "read_only", "super_read_only"
    )
    if values.get("super_read_only") == "ON":
        yield deployment.fault("read-only", *_READ_ONLY)
        return
    if values.get("read_only") == "ON":
        # Because some users may write to such a server, later probes find that out.
        yield deployment.warning("replica", *_READ_ONLY)
    for kind, message, hint in mysql_lock.refusals(connection):
        yield deployment.fault(kind, message, hint)
    flush = f"innodb_flush_log_at_trx_commit is {values['innodb_flush_log_at_trx_commit']}"
    if flush.endswith(" 1"):
        yield deployment.ok("durability", f"{flush}.")
    else:
        yield deployment.warning(
            "durability",
            f"{flush}: what is recorded may be gone after a crash of the machine.",
            "Set it to 1 in the server's configuration.",
        )
