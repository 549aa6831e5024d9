"""PostgreSQL: transaction-level advisory locks, which pass through a pooler in transaction mode."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases import postgresql_server
from once.databases.base import ServerDatabase, apart
from once.exceptions import CannotFence
from once.findings import Finding
from once.guards import SessionGuard

__all__ = ["PostgreSQL"]

#: The 64-bit key of a name: eight bytes of SHA-256 over the schema of the record and the name, so
#: that the tenants of a database do not exclude each other. Before the first migration it is the
#: schema in which the record is going to be created.
_KEY = """('x' || left(encode(sha256(convert_to(
    'once:' || coalesce(
        (SELECT relnamespace::regnamespace::text FROM pg_class
          WHERE oid = to_regclass('once_completion')),
        current_schema(), ''
    ) || ':' || %s, 'UTF8')), 'hex'), 16))::bit(64)::bigint"""

#: Sessions that hold the key's advisory lock. pg_locks shows the halves of a 64-bit key in classid
#: and objid, with objsubid 1 (PostgreSQL manual, "pg_locks").
_HOLDERS = f"""FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid),
         (SELECT {_KEY} AS key) AS k
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = k.key
      AND l.pid <> pg_backend_pid()"""

#: Ends them, waiting up to a second for each to be gone (manual, "Server Signaling"). As the role
#: that logged in, which may end its own sessions: one that it assumed may not. For this statement,
#: and after the key was made of what the assumed role sees.
_END_HOLDERS = f"""WITH holders AS MATERIALIZED (SELECT l.pid {_HOLDERS}),
         login AS MATERIALIZED (
             SELECT set_config('role', 'none', true) FROM (SELECT count(*) FROM holders) AS found)
    SELECT count(pg_terminate_backend(pid, 1000)) FROM holders, login"""

_SERIALIZATION_FAILURE = "40001"
_DEADLOCK = "40P01"
_IN_FAILED_TRANSACTION = "25P02"
_LOCK_NOT_AVAILABLE = "55P03"
_INSUFFICIENT_PRIVILEGE = "42501"
_TOO_MANY_CONNECTIONS = "53300"
_CONNECTION_CLASS = "08"
_SHUTDOWN_CLASS = "57P"


class PostgreSQL(ServerDatabase):
    """PostgreSQL 14 and newer, through psycopg 3."""

    def guard(self, name: str, liveness: float) -> "AdvisoryGuard":
        return AdvisoryGuard(self.using, name, liveness)

    def holder(self, name: str) -> str | None:
        return _holder(self.connection, name)[0]

    @contextmanager
    def statements(self) -> Iterator[None]:
        with self.connection.execute_wrapper(_whole_transaction):
            yield

    def among(self, names: Sequence[str]) -> tuple[str, list[str]]:
        # One text, whatever their number: to quote a thousand takes as long as to find them.
        return "= ANY(string_to_array(%s, ' '))", [" ".join(names)]  # none holds a space

    def lock_work(self, name: str) -> bool:
        # The role's idle timeout would end a transaction whose body thinks for long.
        timeouts = ["idle_in_transaction_session_timeout"]
        if _server_version(self.connection) >= 170000:
            timeouts.append("transaction_timeout")
        settings = "".join(f"set_config('{timeout}', '0', true), " for timeout in timeouts)
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT {settings} pg_try_advisory_xact_lock({_KEY})", [_work(name)])
            return bool(cursor.fetchone()[-1])

    def sync(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = on")

    def limit_statements(self, seconds: float) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('statement_timeout', %s, true)", [f"{round(seconds * 1000)}ms"]
            )

    def end_work(self, name: str) -> int:
        with self.statements(), self.connection.cursor() as cursor:
            try:
                cursor.execute(_END_HOLDERS, [_work(name)])
                ended: int = cursor.fetchone()[0]
            except DatabaseError as error:
                if _sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
                    raise
                login = self.connection.settings_dict["USER"] or "this role"
                user, grant = login, "pg_signal_backend"
                if "pg_terminate_backend" in str(error).partition("\n")[0]:
                    # The call itself is forbidden, and to the role that Django assumes.
                    user = self._role
                    grant = "EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint)"
                raise CannotFence(
                    f"A predecessor's transaction is still open and {user} may not end it: "
                    f"GRANT {grant} TO {user}; or end that session yourself."
                ) from error
            else:
                return ended

    def is_conflict(self, error: BaseException) -> bool:
        return _sqlstate(error) in (_SERIALIZATION_FAILURE, _DEADLOCK)

    def is_locked(self, error: BaseException) -> bool:
        return _sqlstate(error) == _LOCK_NOT_AVAILABLE

    def is_lost(self, error: BaseException) -> bool:
        state = _sqlstate(error)
        if state is None:
            driver: Any = self.connection
            # Without a state it is not the server that complains; InternalError: half an answer.
            kinds = (
                driver.Database.OperationalError,
                driver.Database.InterfaceError,
                driver.Database.InternalError,
            )
            return isinstance(error.__cause__ or error, kinds)
        return state == _TOO_MANY_CONNECTIONS or state.startswith(
            (_CONNECTION_CLASS, _SHUTDOWN_CLASS)
        )

    def is_aborted(self, error: BaseException) -> bool:
        return _sqlstate(error) == _IN_FAILED_TRANSACTION

    def problems(self) -> list[tuple[str, str]]:
        driver: Any = self.connection
        version = str(driver.Database.__version__)
        if version.startswith("2"):
            problem = f"psycopg {version.split()[0]} is in use; psycopg 3 is needed"
            return [(problem, 'Install it: pip install "django-once[postgresql]".')]
        return []

    def place(self) -> str:
        return postgresql_server.place(self.connection)

    def examine(self) -> Iterator[Finding]:
        self.connection.ensure_connection()
        yield from postgresql_server.examine(self.connection)

    def advice(self, error: BaseException) -> str:
        if "statement pooling" in str(error):
            return (
                "A pooler in statement mode stands before the server. Set pool_mode = transaction "
                "for this database there, or connect to the server directly."
            )
        if _sqlstate(error) == _INSUFFICIENT_PRIVILEGE:
            return (
                "GRANT SELECT, INSERT, UPDATE, DELETE ON once_attempt, once_completion TO "
                f"{self._role}, and SELECT ON django_migrations."
            )
        return ""

    @property
    def _role(self) -> str:
        """Whose privileges count: that which Django assumes, where it does, and who logs in."""
        settings = self.connection.settings_dict
        return settings["OPTIONS"].get("assume_role") or settings["USER"] or "this role"


class AdvisoryGuard(SessionGuard):
    """An advisory lock in an open transaction, which the server ends where it falls silent.

    The transaction is what passes a pooler in transaction mode: it pins a server connection. Its
    ``idle_in_transaction_session_timeout`` is the liveness timeout: the server's own clock evicts a
    frozen process, a lost node and a cut cable alike.
    """

    def connect(self) -> BaseDatabaseWrapper:
        connection = apart(self.like, max(2, round(self.liveness)))
        # In milliseconds, for what is sent and not acknowledged (manual, "Parameter Key Words").
        connection.settings_dict["OPTIONS"]["tcp_user_timeout"] = round(self.liveness * 1000)
        return connection

    def begin(self) -> None:
        connection = connections[self.using]
        connection.ensure_connection()
        # REPEATABLE READ would read a state from before the lock, and hold up CREATE INDEX
        # CONCURRENTLY for as long as the guard lives.
        self._execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        settings = {
            "application_name": f"once {_this_process()}",
            "statement_timeout": "0",
            "lock_timeout": "0",
        }
        if _server_version(connection) >= 170000:
            settings["transaction_timeout"] = "0"
        calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
        self._execute(f"SELECT {calls}", [part for item in settings.items() for part in item])
        self.set_liveness()

    def set_liveness(self) -> None:
        self._execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
            [f"{round(self.liveness * 1000)}ms"],
        )

    def try_lock(self) -> bool:
        with connections[self.using].cursor() as cursor:
            cursor.execute(f"SELECT pg_try_advisory_xact_lock({_KEY})", [self.name])
            if cursor.fetchone()[0]:
                return True
        self.is_free()
        return False

    def is_free(self) -> bool:
        holder, silence = _holder(connections[self.using], self.name)
        self.holder = holder or self.holder
        if self.liveness / 2 < silence < self.liveness:  # it should have pinged by a third
            self.freed_in = self.liveness - silence
        return holder is None

    def end(self) -> None:
        self._execute("ROLLBACK")

    def _execute(self, sql: str, params: list[str] | None = None) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute(sql, params)


def _whole_transaction(
    execute: Callable[[str, Any, bool, dict[str, Any]], Any],
    sql: str,
    params: Any,
    many: bool,
    context: dict[str, Any],
) -> Any:
    """Send a statement with its BEGIN and COMMIT as one message (execute_wrapper of Django)."""
    connection, cursor = context["connection"], context["cursor"]
    if connection.in_atomic_block or not connection.autocommit:
        # Part of the caller's transaction, which is the caller's to end.
        return execute(sql, params, many, context)
    if params is not None and connection.features.uses_server_side_binding:
        # The server takes no parameters of such a message; Django's own cursor puts them in itself.
        sql, params = connection.ops.compose_sql(sql, params), None
    before = (
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SET LOCAL synchronous_commit = on",
        "SET LOCAL lock_timeout = '250ms'",
    )
    driver = connection.connection
    threshold, driver.prepare_threshold = driver.prepare_threshold, None
    try:
        result = execute("; ".join((*before, sql, "COMMIT")), params, many, context)
    except BaseException:
        with suppress(connection.Database.Error):
            driver.rollback()
        raise
    finally:
        driver.prepare_threshold = threshold  # for single statements
    for _ in before:
        cursor.nextset()
    return result


def _holder(connection: BaseDatabaseWrapper, name: str) -> tuple[str | None, float]:
    """Who holds the lock of a name, and for how many seconds its session was silent."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.application_name, "
            "extract(epoch FROM clock_timestamp() - a.xact_start)::int, "
            f"extract(epoch FROM clock_timestamp() - a.state_change)::float {_HOLDERS} LIMIT 1",
            [name],
        )
        row = cursor.fetchone()
    if row is None:
        return None, 0.0
    who, seconds, silence = row  # times are hidden from other roles (manual, "pg_stat_activity")
    since = f" for {seconds} s" if seconds is not None else ""
    return f"{(who or '').removeprefix('once ') or 'another process'}{since}", silence or 0.0


def _this_process() -> str:
    # PostgreSQL cuts an application name after 63 bytes and keeps ASCII only.
    return f"{socket.gethostname()[:40]} (pid {os.getpid()})"


def _work(name: str) -> str:
    return f"work {name}"  # no guard's name holds a space


def _server_version(connection: BaseDatabaseWrapper) -> int:
    return int(connection.connection.info.server_version)


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None)
