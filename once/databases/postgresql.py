"""PostgreSQL: transaction-level advisory locks, which pass through a pooler in transaction mode."""

import os
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases import postgresql_server
from once.databases.base import ServerDatabase, apart
from once.exceptions import CannotFence
from once.findings import Finding
from once.guards import Guard, Place, SessionGuard

__all__ = ["PostgreSQL"]

#: The 64-bit key of a name: eight bytes of SHA-256 over the schema of the record and the name, so
#: that the tenants of a database do not exclude each other. Before the first migration it is the
#: schema in which the record is going to be created, by the same name: quoted where it must be.
_KEY = """('x' || left(encode(sha256(convert_to(
    'once:' || coalesce(
        (SELECT relnamespace::regnamespace::text FROM pg_class
          WHERE oid = to_regclass('once_completion')),
        quote_ident(current_schema()), ''
    ) || ':' || %s, 'UTF8')), 'hex'), 16))::bit(64)::bigint"""

#: Other sessions that hold the lock of a key. pg_locks shows the halves of a 64-bit key in classid
#: and objid, with objsubid 1 (PostgreSQL manual, "pg_locks").
_HOLDERS = """JOIN pg_locks AS l ON k.key = (l.classid::bigint << 32) | l.objid::bigint
    JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ExclusiveLock' AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.pid <> pg_backend_pid()"""

#: The locks of a name and of its heir, by number: in a new session each name that is looked up in
#: the catalog costs as much as connecting.
_KEYS = f"SELECT {_KEY} AS guard, {_KEY} AS heir"

#: Tries the lock of a name, and says which session this is.
_TAKE = f"""SELECT pg_try_advisory_xact_lock(guard), pg_backend_pid(), guard, heir
    FROM ({_KEYS}) AS keys"""

#: Takes the place of the heir and says so in the server's list of sessions.
_TAKE_PLACE = """SELECT CASE WHEN pg_try_advisory_xact_lock(%s)
    THEN set_config('application_name', %s, true) END"""

#: Asks by trying, for as long as this statement lasts, what others may try as well.
_LOOK = "SELECT pg_try_advisory_xact_lock_shared(%s), pg_try_advisory_xact_lock_shared(%s)"

#: The same where the numbers are not known yet.
_FIRST_LOOK = f"""SELECT pg_try_advisory_xact_lock_shared(guard),
    pg_try_advisory_xact_lock_shared(heir), guard, heir FROM ({_KEYS}) AS keys"""

#: Who holds the lock of a name, since when, and for how long in silence.
_HOLDER = f"""SELECT a.application_name,
        extract(epoch FROM clock_timestamp() - a.xact_start)::int,
        extract(epoch FROM clock_timestamp() - a.state_change)::float
    FROM (SELECT {_KEY} AS key) AS k {_HOLDERS} LIMIT 1"""

#: Those of some names whose lock is held.
_HELD = f"""SELECT DISTINCT k.name
    FROM (SELECT name, {_KEY.replace("%s", "name")} AS key
            FROM unnest(string_to_array(%s, ' ')) AS name) AS k {_HOLDERS}"""

#: Ends the holders, waiting up to a second for each to be gone (manual, "Server Signaling"). As the
#: role that logged in, which may end its own sessions: one that it assumed may not. For this
#: statement, and after the key was made of what the assumed role sees.
_END_HOLDERS = f"""WITH holders AS MATERIALIZED (
             SELECT a.pid FROM (SELECT {_KEY} AS key) AS k {_HOLDERS}),
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

    def guard(self, name: str, liveness: float, before: Guard | None = None) -> "AdvisoryGuard":
        return AdvisoryGuard(self.using, name, liveness, before)

    def holder(self, name: str) -> str | None:
        with self.guard(name, 0.0) as guard:
            return guard.holder if guard.find_holder() else None

    def held(self, names: Collection[str]) -> set[str]:
        with self.statements(), self.connection.cursor() as cursor:
            cursor.execute(_HELD, [" ".join(names)])
            return {name for (name,) in cursor.fetchall()}

    def statements(self) -> AbstractContextManager[None]:
        return self.connection.execute_wrapper(_whole_transaction)

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
                "SELECT set_config('statement_timeout', %s, true)", [_milliseconds(seconds)]
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

    #: The keys of the lock and of its heir's, once the server was asked for them.
    _keys: Sequence[int] = ()

    def connect(self) -> BaseDatabaseWrapper:
        connection = apart(self.like, max(2, round(self.liveness)))
        # In milliseconds, for what is sent and not acknowledged (manual, "Parameter Key Words").
        connection.settings_dict["OPTIONS"]["tcp_user_timeout"] = round(self.liveness * 1000)
        return connection

    def take(self) -> Place:
        connection: Any = connections[self.using]
        connection.ensure_connection()
        session = connection.connection.info
        settings = {
            "application_name": f"once {_this_process()}",
            "statement_timeout": "0",
            "lock_timeout": "0",
            "idle_in_transaction_session_timeout": _milliseconds(self.liveness),
        }
        if session.server_version >= 170000:
            settings["transaction_timeout"] = "0"
        is_idle = session.transaction_status == connection.Database.pq.TransactionStatus.IDLE
        # REPEATABLE READ would read a state from before the lock, and hold up CREATE INDEX
        # CONCURRENTLY for as long as the guard lives.
        begin = f"{'' if is_idle else 'ROLLBACK; '}BEGIN ISOLATION LEVEL READ COMMITTED"
        calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
        pairs = [part for pair in settings.items() for part in pair]
        *_, [(is_held, pid, *self._keys)] = _message(
            connection,
            (begin, []),
            (f"SELECT {calls}", pairs),
            (_TAKE, [self.name, _heir(self.name)]),
        )
        # A pooler numbers sessions as it likes. Behind one there is no heir: it would keep a
        # connection that the pooler may need to lend for the work.
        self.has_heirs = pid == session.backend_pid
        if is_held or not self.has_heirs:
            return Place.HOLDER if is_held else Place.NONE
        with connection.cursor() as cursor:
            cursor.execute(_TAKE_PLACE, [self._keys[1], f"once heir {_this_process()}"])
            return Place.NONE if cursor.fetchone()[0] is None else Place.HEIR

    def look(self) -> bool:
        with connections[self.using].cursor() as cursor:
            if self._keys:
                cursor.execute(_LOOK, self._keys)
            else:
                cursor.execute(_FIRST_LOOK, [self.name, _heir(self.name)])
            is_free, has_no_heir, *keys = cursor.fetchone()
        self._keys = keys or self._keys
        return is_free or (has_no_heir and self.has_heirs)

    def find_holder(self) -> bool:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_HOLDER, [self.name])
            found = cursor.fetchone()
        if found is None:
            return False
        who, seconds, silence = found  # times are hidden from others (manual, "pg_stat_activity")
        since = f" for {seconds} s" if seconds is not None else ""
        self.holder = (
            f"{(who or '').removeprefix('once ').removeprefix('heir ') or 'another process'}{since}"
        )
        self.expect_end(silence or 0.0)
        return True

    def set_liveness(self) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
                [_milliseconds(self.liveness)],
            )

    def end(self) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute("ROLLBACK")


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
    sql, params = _for_message(connection, sql, params)
    before = (
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SET LOCAL synchronous_commit = on",
        "SET LOCAL lock_timeout = '250ms'",
    )
    try:
        with _unprepared(connection):
            result = execute("; ".join((*before, sql, "COMMIT")), params, many, context)
    except BaseException:
        with suppress(connection.Database.Error):
            connection.connection.rollback()
        raise
    next_answer = cursor.nextset  # Django wraps it anew each time that it is asked for
    for _ in before:
        next_answer()
    return result


def _message(connection: Any, *statements: tuple[str, list[str]]) -> list[list[tuple[Any, ...]]]:
    """Send statements as one message; the rows that each answers."""
    sql = "; ".join(sql for sql, _ in statements)
    params = [param for _, params in statements for param in params]
    answers = []
    with connection.cursor() as cursor, _unprepared(connection):
        cursor.execute(*_for_message(connection, sql, params))
        while True:
            answers.append(cursor.fetchall() if cursor.description else [])
            if not cursor.nextset():
                return answers


def _for_message(connection: Any, sql: str, params: Any) -> tuple[str, Any]:
    """Several statements and their parameters, such that the server takes them as one message."""
    if params is not None and connection.features.uses_server_side_binding:
        return connection.ops.compose_sql(sql, params), None
    return sql, params  # Django's own cursor puts them in itself


def _unprepared(connection: Any) -> AbstractContextManager[None]:
    """A context in which the driver prepares nothing: that is for single statements."""
    # What Django's own cursor binds is not prepared in any case.
    if not connection.features.uses_server_side_binding:
        return nullcontext()
    return _preparing_nothing(connection.connection)


@contextmanager
def _preparing_nothing(driver: Any) -> Iterator[None]:
    threshold, driver.prepare_threshold = driver.prepare_threshold, None
    try:
        yield
    finally:
        driver.prepare_threshold = threshold


def _this_process() -> str:
    # PostgreSQL cuts an application name after 63 bytes and keeps ASCII only.
    return f"{socket.gethostname()[:40]} (pid {os.getpid()})"


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _work(name: str) -> str:
    return f"work {name}"  # no guard's name holds a space


def _heir(name: str) -> str:
    return f"heir {name}"


def _server_version(connection: BaseDatabaseWrapper) -> int:
    return int(connection.connection.info.server_version)


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None)
