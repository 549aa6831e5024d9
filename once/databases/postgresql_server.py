"""What there is to know of a PostgreSQL, and of what stands between it and this process."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.version import get_version_tuple

from once.findings import Finding, Level

__all__ = ["examine", "place"]

_OLDEST = 140000
_OLDEST_PSYCOPG = (3, 1, 18)

_FACTS = (
    "session_user",
    "current_user",
    "pg_is_in_recovery()",
    "current_setting('transaction_read_only') = 'on'",
    "current_setting('transaction_isolation')",
    "current_setting('synchronous_commit')",
    "current_setting('synchronous_standby_names')",
    "current_setting('fsync') = 'on'",
    "(SELECT count(*) FROM pg_stat_replication)",
    "pg_backend_pid()",
)

#: Those that a role, a database or a connection may set. 0 means none.
_TIMEOUTS = """
SELECT name || ' = ' || setting || coalesce(unit, '') FROM pg_settings
 WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
                'idle_session_timeout', 'transaction_timeout')
   AND setting <> '0'
 ORDER BY name"""

#: Sessions are ended as the role that logged in, which must have the privileges of theirs or those
#: of pg_signal_backend (manual, "Server Signaling Functions").
_OTHER_ROLES = """
SELECT rolname::text FROM pg_roles
 WHERE rolcanlogin AND NOT rolsuper
   AND has_table_privilege(oid, to_regclass('once_attempt'), 'INSERT')
   AND NOT pg_has_role(session_user, oid, 'USAGE')
   AND NOT pg_has_role(session_user, 'pg_signal_backend', 'USAGE')
 ORDER BY rolname"""


def examine(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    """What is good to know of a server and of this session's settings, or wrong with them."""
    finding = partial(Finding, database=connection.alias)
    [facts] = _rows(connection, f"SELECT {', '.join(_FACTS)}")
    login, role, is_standby, is_read_only, isolation, commit, standbys, has_fsync, replicas, pid = (
        facts
    )
    driver: Any = connection.connection
    yield _server(finding, int(driver.info.server_version))
    yield _driver(finding, connection)
    if is_standby or is_read_only:
        yield finding(
            id="read-only",
            level=Level.FAULT,
            message="It is a standby, which admits no writes."
            if is_standby
            else "Transactions are read-only here (default_transaction_read_only).",
            hint="Point HOST at the primary, or add target_session_attrs=read-write to OPTIONS."
            if is_standby
            else f"ALTER ROLE {role} RESET default_transaction_read_only; or look in OPTIONS.",
        )
        return
    if driver.info.backend_pid != pid:
        # A pooler hands out process ids of its own, for the cancel requests that it forwards.
        yield finding(id="pooler", message="A connection pooler stands before the server.")
    timeouts = [row[0] for row in _rows(connection, _TIMEOUTS)]
    set_ones = f"; for bodies hold {', '.join(timeouts)}" if timeouts else ""
    yield finding(id="session", message=f"Role {role}, isolation level {isolation}{set_ones}.")
    yield _durability(finding, commit, standbys, replicas, has_fsync=has_fsync)
    if others := [row[0] for row in _rows(connection, _OTHER_ROLES)]:
        yield finding(
            id="roles",
            level=Level.WARNING,
            message=f"Other roles may write the record as well ({', '.join(others)}), and "
            f"{login} may not end their sessions.",
            hint=f"If servers run as those, too: GRANT pg_signal_backend TO {login}; and to them.",
        )


def place(connection: BaseDatabaseWrapper) -> str:
    """The server and database that a session is on."""
    [(name, started, port)] = _rows(
        connection,
        "SELECT current_database(), pg_postmaster_start_time()::text, current_setting('port')",
    )
    return f"database {name} of the server on port {port} that started at {started}"


def _server(finding: partial[Finding], version: int) -> Finding:
    shown = f"PostgreSQL {version // 10000}.{version % 10000}."
    if version >= _OLDEST:
        return finding(id="server", message=shown)
    hint = f"It must be PostgreSQL {_OLDEST // 10000} or newer: upgrade the server."
    return finding(id="server", level=Level.FAULT, message=shown, hint=hint)


def _driver(finding: partial[Finding], connection: BaseDatabaseWrapper) -> Finding:
    driver: Any = connection
    psycopg = driver.Database
    libpq = psycopg.pq.version()
    level, hint = Level.OK, ""
    if get_version_tuple(psycopg.__version__) < _OLDEST_PSYCOPG:
        level = Level.WARNING
        hint = 'Upgrade it: pip install -U "django-once[postgresql]".'
    return finding(
        id="driver",
        level=level,
        message=f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}) with libpq "
        f"{libpq // 10000}.{libpq % 10000}.",
        hint=hint,
    )


def _durability(
    finding: partial[Finding], commit: str, standbys: str, replicas: int, *, has_fsync: bool
) -> Finding:
    level, hint = Level.OK, ""
    message = f"synchronous_commit is {commit}"
    if standbys:
        message += f", synchronous_standby_names is {standbys!r}"
    elif replicas:
        message += f", and {replicas} replicas follow asynchronously"
    if not has_fsync:
        level = Level.WARNING
        message += ", fsync is off: what is recorded may be gone after a crash"
        hint = "Set fsync = on in the server's configuration, but for tests."
    elif replicas and (not standbys or commit in ("off", "local")):
        level = Level.WARNING
        message += ": a failover may lose record and effects together, and both happen again"
        hint = "Name a standby in synchronous_standby_names and keep synchronous_commit = on."
    return finding(id="durability", level=level, message=f"{message}.", hint=hint)


def _rows(connection: BaseDatabaseWrapper, sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
