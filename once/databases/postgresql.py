"""PostgreSQL: transaction-level advisory locks, which pass through a pooler in transaction mode."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import DatabaseError, Error

from once.databases.messages import followed, message, whole_transaction
from once.databases.postgresql_lock import (
    HOLDERS,
    KEY,
    PostgreSQLLock,
    keyed,
    milliseconds,
    unlimited,
)
from once.databases.servers import ServerDatabase, mark_name
from once.databases.tables import MODELS, ask, execute, quoted
from once.databases.transactions import TransactionState

#: The names, of several, whose lock is taken, each with whether by a process of once.
_TAKEN = f"""SELECT k.name, bool_or(starts_with(a.application_name, 'once '))
    FROM (SELECT name, {KEY.replace("|| %s", "|| name")} AS key
            FROM unnest(string_to_array(%s, ' ')) AS name) AS k {HOLDERS}
    GROUP BY k.name"""

#: Ends the holders, waiting up to a second for each to be gone (manual, "Server Signaling"). As the
#: role that logged in, which may end its own sessions: one that it assumed may not. For this
#: statement, and after the key was made of what the assumed role sees.
_END_HOLDERS = f"""WITH holders AS MATERIALIZED (
             SELECT a.pid FROM (SELECT {KEY} AS key) AS k {HOLDERS}),
         login AS MATERIALIZED (
             SELECT set_config('role', 'none', true) FROM (SELECT count(*) FROM holders) AS found)
    SELECT count(pg_terminate_backend(pid, 1000)) FROM holders, login"""

#: A session that has, or wants, a table of the record for itself, and the sessions in its way.
_TAKER = """SELECT l.relation::regclass::text, l.granted, l.pid, a.usename, a.application_name,
        array_to_string(pg_blocking_pids(l.pid), ', ')
    FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.relation IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name) AND l.mode IN
        ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    ORDER BY l.granted DESC, l.waitstart LIMIT 1"""

#: Limits the waits for locks in this transaction, unless they have a shorter limit, or a SET said
#: something. Returns the session's id, its own limit in milliseconds, and a new one that is set.
_LIMIT_LOCKS = """SELECT pg_backend_pid(), setting::int, CASE
        WHEN source <> 'session' AND setting::int NOT BETWEEN 1 AND %s
        THEN set_config('lock_timeout', %s, true) END
    FROM pg_settings WHERE name = 'lock_timeout'"""
#: Restores the limit for what follows, unless the statement in between was a SET.
_RESTORE_LOCKS = """SELECT set_config('lock_timeout', NULL, true)
    WHERE current_setting('lock_timeout') = '{limit}'"""

#: Of a lost connection, the first letters of codes: connection exceptions, too many connections,
#: and the end of a session or of the server.
_LOST = ("08", "53300", "57P")


class PostgreSQL(ServerDatabase):
    """PostgreSQL 14 and newer, through psycopg 3."""

    lock_class = PostgreSQLLock
    takes_messages = True
    conflicts = ("40001", "40P01")  # a serialization failure, a deadlock
    locked_errors = ("55P03",)
    cancelled_errors = ("57014",)
    read_only_errors = ("25006",)
    no_transaction_errors = ("25001", "2D000")  # in a transaction, or a COMMIT in one
    aborted_errors = ("25P02",)
    no_savepoint_errors = ("3B001", "25P01")
    denied_errors = ("42501",)

    @staticmethod
    def misfit(connection: Any) -> tuple[str, str] | None:
        version = str(connection.Database.__version__)
        if not version.startswith("2"):
            return None
        problem = f"psycopg {version.split()[0]} is in use; psycopg 3 is needed"
        return problem, 'Install it: pip install "django-once[postgresql]".'

    def locked(self, names: Collection[str]) -> dict[str, bool]:
        with self.statements():
            taken = ask(self.connection, _TAKEN, keyed(self.connection, " ".join(names)))
        return {name: bool(is_own) for name, is_own in taken}

    def aware(self, moment: datetime) -> datetime:
        if moment.tzinfo is None:  # as Django reads times without USE_TZ
            moment = moment.replace(tzinfo=_zone(self.connection.timezone_name))
        return moment.astimezone(UTC)

    def statements(self) -> AbstractContextManager[None]:
        return self.connection.execute_wrapper(whole_transaction)

    def among(self, names: Sequence[str]) -> tuple[str, list[str]]:
        # One text, whatever their number: to quote a thousand takes as long as to find them.
        return "= ANY(string_to_array(%s, ' '))", [" ".join(names)]  # none holds a space

    def transaction(self) -> TransactionState:
        driver: Any = self.connection
        states = {
            "IDLE": TransactionState.NONE,
            "INERROR": TransactionState.ABORTED,
            "UNKNOWN": TransactionState.UNKNOWN,
        }
        return states.get(driver.connection.info.transaction_status.name, TransactionState.OPEN)

    def mark_backend(self, name: str, key: Any = None) -> Any:
        # The role's own idle timeout would end a transaction while its body computes for long.
        timeouts = unlimited(self.connection, "idle_in_transaction_session_timeout")
        settings = "".join(f"set_config('{timeout}', '0', true), " for timeout in timeouts)
        if key:
            what, params = "%s::bigint, pg_try_advisory_xact_lock(%s)", [key, key]
        else:
            # By OFFSET the server computes it once, and not wherever it is named.
            keys = f"(SELECT {KEY} AS key OFFSET 0) AS keys"
            what = f"key, pg_try_advisory_xact_lock(key) FROM {keys}"
            params = keyed(self.connection, mark_name(name))
        sql = f"SELECT {settings}{what}"
        [(*_, key, is_marked)] = ask(self.connection, sql, params)
        return key if is_marked else None

    def lock_table(self, table: str, *, alone: bool = False) -> None:
        # PostgreSQL manual, 13.3.1, Table-Level Locks.
        mode = "ACCESS EXCLUSIVE" if alone else "SHARE ROW EXCLUSIVE"
        quoted = self.connection.ops.quote_name(table)
        # By a schema editor, because under --migrate its statements wait for a limited time.
        self.connection.schema_editor().execute(f"LOCK TABLE {quoted} IN {mode} MODE")

    @contextmanager
    def limiting_locks(self, seconds: float) -> Iterator[tuple[float, int | None]]:
        connection: Any = self.connection
        begin: list[Any] = [] if connection.in_atomic_block else [("BEGIN", [])]
        most = max(1, round(seconds * 1000))
        # By SET LOCAL, because a pooler may lend the session to another client afterwards. As one
        # message with COMMIT, because a process that freezes before it would keep the locks.
        try:
            *_, [(pid, own, limit)] = message(
                connection, *begin, (_LIMIT_LOCKS, [most, f"{most}ms"])
            )
            after = [_RESTORE_LOCKS.format(limit=limit)] if limit else []
            after += ["COMMIT"] if begin else []
            with followed(self, *after):
                yield (most if limit else own) / 1000, pid
        except BaseException:
            if begin:
                with suppress(connection.Database.Error):
                    connection.connection.rollback()
            raise

    def sync(self) -> None:
        execute(self.connection, "SET LOCAL synchronous_commit = on")

    def limit_statements(self, seconds: float) -> None:
        execute(self.connection, f"SET LOCAL statement_timeout = '{milliseconds(seconds)}'")

    def terminate_backend(self, name: str) -> int:
        self.connection.ensure_connection()
        # A role's own limits would cut off the wait for the end of a holder.
        timeouts = unlimited(self.connection, "statement_timeout")
        limits = [f"SET LOCAL {timeout} = 0" for timeout in timeouts]
        wrapper = partial(whole_transaction, limits=limits)
        try:
            with self.connection.execute_wrapper(wrapper):
                key = keyed(self.connection, mark_name(name))
                [(ended,)] = ask(self.connection, _END_HOLDERS, key)
        except DatabaseError as error:
            if not self.is_denied(error):
                raise
            role, grant = super().role, "pg_signal_backend"
            if "pg_terminate_backend" in str(error).partition("\n")[0]:
                # The call itself is forbidden, and to the role that Django assumes.
                role = self.role
                grant = "EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint)"
            raise self.cannot_fence(role, grant) from error
        return int(ended)

    def code(self, error: BaseException) -> str | None:
        return getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None)

    def obstacle(self, error: Exception) -> str:
        names = [quoted(self.connection, model) for model in MODELS]
        taker: list[Any] = []
        with suppress(Error), self.answering():
            taker = ask(self.connection, _TAKER, [names])
        for table, is_granted, pid, role, name, blockers in taker:
            return (
                f"{table} is {'locked' if is_granted else 'to be locked'} by a session (pid {pid}, "
                f"role {role}, application {name!r})"
                f"{f', which waits for pid {blockers}' if blockers else ''}"
            )
        return super().obstacle(error)

    def is_lost(self, error: BaseException) -> bool:
        state = self.code(error)
        if state is None:
            driver: Any = self.connection
            # Without a state the error is the driver's own; InternalError: half an answer.
            kinds = (
                driver.Database.OperationalError,
                driver.Database.InterfaceError,
                driver.Database.InternalError,
            )
            return isinstance(error.__cause__ or error, kinds)
        return state in self.read_only_errors or state.startswith(_LOST)

    def advice(self, error: BaseException) -> str:
        if "statement pooling" in str(error):
            return (
                "A pooler in statement mode stands before the server. Set pool_mode = transaction "
                "for this database there, or connect to the server directly."
            )
        return super().advice(error)

    @property
    def role(self) -> str:
        return self.connection.settings_dict["OPTIONS"].get("assume_role") or super().role


def _zone(name: str | None) -> tzinfo:
    try:
        return ZoneInfo(name or "UTC")
    except ZoneInfoNotFoundError:  # no zone data: psycopg, too, reads times in UTC then
        return UTC
