"""The doctor's questions to a PostgreSQL and to a pooler before it."""

from collections.abc import Iterator
from typing import Any

from django.utils.version import get_version_tuple

from once.databases import tables
from once.doctor.deployment import Deployment, Finding

_OLDEST = (14,)
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

#: Timeouts that a role, a database or a connection may set. 0 means none.
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
   AND has_table_privilege(oid, to_regclass(%s), 'INSERT')
   AND NOT pg_has_role(session_user, oid, 'USAGE')
   AND NOT pg_has_role(session_user, 'pg_signal_backend', 'USAGE')
 ORDER BY rolname"""


def examine(deployment: Deployment) -> Iterator[Finding]:
    """Yield facts and faults of a server and of this session's settings."""
    connection = deployment.database.connection
    [facts] = tables.ask(connection, f"SELECT {', '.join(_FACTS)}")
    login, role, is_standby, is_read_only, isolation, commit, standbys, has_fsync, replicas, pid = (
        facts
    )
    driver: Any = connection.connection
    yield deployment.server(_OLDEST)
    yield _driver(deployment)
    if is_standby:
        yield deployment.fault(
            "read-only",
            "It is a standby, which admits no writes.",
            "Point HOST at the primary, or add target_session_attrs=read-write to OPTIONS.",
        )
        return
    if is_read_only:
        yield deployment.fault(
            "read-only",
            "Transactions are read-only here (default_transaction_read_only).",
            f"ALTER ROLE {role} RESET default_transaction_read_only; or look in OPTIONS.",
        )
        return
    if driver.info.backend_pid != pid:
        # A pooler hands out process ids of its own, for the cancel requests that it forwards.
        yield deployment.ok("pooler", "A connection pooler stands before the server.")
    timeouts = [row[0] for row in tables.ask(connection, _TIMEOUTS)]
    limits = f"; for bodies hold {', '.join(timeouts)}" if timeouts else ""
    yield deployment.ok("session", f"Role {role}, isolation level {isolation}{limits}.")
    yield _durability(deployment, commit, standbys, replicas, has_fsync=has_fsync)
    table = tables.quoted(connection, "attempt")
    if roles := [row[0] for row in tables.ask(connection, _OTHER_ROLES, [table])]:
        yield deployment.warning(
            "roles",
            f"Other roles may write the record as well ({', '.join(roles)}), and {login} may not "
            "end their sessions.",
            f"If servers run as those, too: GRANT pg_signal_backend TO {login}; and to them.",
        )


def _driver(deployment: Deployment) -> Finding:
    driver: Any = deployment.database.connection
    psycopg = driver.Database
    libpq = psycopg.pq.version()
    message = (
        f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}) with libpq "
        f"{libpq // 10000}.{libpq % 10000}."
    )
    if get_version_tuple(psycopg.__version__) >= _OLDEST_PSYCOPG:
        return deployment.ok("driver", message)
    hint = 'Upgrade it: pip install -U "django-once[postgresql]".'
    return deployment.warning("driver", message, hint)


def _durability(
    deployment: Deployment, commit: str, standbys: str, replicas: int, *, has_fsync: bool
) -> Finding:
    message = f"synchronous_commit is {commit}"
    if standbys:
        message += f", synchronous_standby_names is {standbys!r}"
    elif replicas:
        message += f", and {replicas} replicas follow asynchronously"
    if not has_fsync:
        return deployment.warning(
            "durability",
            f"{message}, fsync is off: what is recorded may be gone after a crash.",
            "Set fsync = on in the server's configuration, but for tests.",
        )
    if replicas and (not standbys or commit in ("off", "local")):
        return deployment.warning(
            "durability",
            f"{message}: a failover may lose record and effects together, and both happen again.",
            "Name a standby in synchronous_standby_names and keep synchronous_commit = on.",
        )
    return deployment.ok("durability", f"{message}.")
