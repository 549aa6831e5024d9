"""MySQL and MariaDB: named locks, which the server frees with the session that holds them."""

import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from time import monotonic
from typing import Any

from django.db import Error

from once.databases import tables
from once.databases.base import Context, Execute
from once.databases.mysql_lock import LOCK, OWN, MySQLLock, digest
from once.databases.servers import ServerDatabase, mark_name
from once.databases.transactions import TransactionState
from once.exceptions import CannotFence

#: Variables by which the server ends idle sessions, with the value that disables each. Set during
#: the work, restored after it. The first has the least of all systems' maxima, in seconds.
_IDLE_TIMEOUTS = {"wait_timeout": 2147483}
_IDLE_TIMEOUTS_OF_MARIADB = {
    "idle_transaction_timeout": 0,
    "idle_readonly_transaction_timeout": 0,
    "idle_write_transaction_timeout": 0,
}

#: Seconds that a session which was told to end has for it, before that is called a problem.
_PATIENCE = 2.0

_NO_SAVEPOINT = 1305
_NO_SUCH_THREAD = 1094
_NOT_OWNER_OF_THREAD = 1095
#: Of the server: too many connections (two kinds), not now (shutdown, offline), the end of a
#: session, and a network that lost a message.
_LOST = {1040, 1203, 1226, 1053, 3032, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3169, 4031}
#: Of the server, to a new connection: it does not know the user, or the database.
_REFUSED = {1042, 1043, 1044, 1045, 1049, 1129, 1130}
#: Of the client library (manual, "Client Error Message Reference"), and of the driver itself.
_CLIENT_ERRORS = range(2000, 3000)
_CLOSED = 0

_WRITES = ("INSERT", "UPDATE", "DELETE")
_READ = "SELECT "
_IMPATIENT_READ = (
    "/*M! SET STATEMENT lock_wait_timeout=1 FOR */ SELECT /*+ SET_VAR(lock_wait_timeout=1) */ "
)


class MySQL(ServerDatabase):
    """MySQL 8.0.13 and newer, or MariaDB, through mysqlclient; the tables in InnoDB.

    A committed row outlives a crash of the machine only if the server has
    ``innodb_flush_log_at_trx_commit = 1``, its default. Because no session can ask for it, there is
    no :meth:`sync`.
    """

    has_fenced_ddl = True
    lock_class = MySQLLock
    conflicts = (1213, 1020)  # a deadlock; of MariaDB, with innodb_snapshot_isolation
    locked_errors = (1205, 3572)  # after a wait, and with NOWAIT
    no_savepoint_errors = (_NO_SAVEPOINT,)
    cancelled_errors = (1317, 1969, 3024)  # by KILL QUERY, and by the limits of MariaDB and MySQL
    read_only_errors = (1290, 1792, 1836)
    denied_errors = (1142, 1143, 1227)
    text_errors = (1366,)  # an OperationalError for the driver

    @staticmethod
    def misfit(connection: Any) -> tuple[str, str] | None:
        # PyMySQL takes the place of the module MySQLdb, and keeps its own name.
        driver = getattr(connection, "Database", None)
        name = getattr(driver, "__name__", type(connection).__module__)
        if name == "MySQLdb":
            return None
        return (
            f"the driver {name} is in use; mysqlclient is needed",
            'Install it: pip install "django-once[mysql]". Set ENGINE to '
            '"django.db.backends.mysql", and remove pymysql.install_as_MySQLdb().',
        )

    def locked(self, names: Collection[str]) -> dict[str, bool]:
        ordered = [*names]
        holder = f"IS_USED_LOCK({LOCK})"
        # Of each name the holder, and whether that is known to be of once.
        question = f"{holder}, IS_USED_LOCK({OWN.format(session=holder)}) IS NOT NULL"
        digests = [digest(name) for name in ordered for _ in range(2)]
        questions = ", ".join([question] * len(ordered))
        [answers] = tables.ask(self.connection, f"SELECT {questions}", digests)
        rows = zip(ordered, answers[::2], answers[1::2], strict=True)
        return {name: bool(is_own) for name, holder, is_own in rows if holder is not None}

    def statements(self) -> AbstractContextManager[None]:
        return self.connection.execute_wrapper(_impatiently)

    def or_update(self, unique: Sequence[str], changed: Sequence[str]) -> str:
        changes = ", ".join(f"{column} = VALUES({column})" for column in changed)
        return f"ON DUPLICATE KEY UPDATE {changes}"

    @contextmanager
    def migration(self) -> Iterator[None]:
        try:  # no transaction, which the first CREATE TABLE would end
            yield
        finally:
            self.unmark_backend()

    def transaction(self) -> TransactionState:
        # Because the driver knows of autocommit alone, ask the server. Without a transaction it
        # forgets a savepoint at once (manual, "SAVEPOINT").
        session = self.connection.connection
        if not session.get_autocommit():
            return TransactionState.OPEN
        try:
            session.query("SAVEPOINT once_probe")
            session.query("RELEASE SAVEPOINT once_probe")
        except Exception as error:
            is_none = error.args[:1] == (_NO_SAVEPOINT,)
            return TransactionState.NONE if is_none else TransactionState.UNKNOWN
        return TransactionState.OPEN

    def mark_backend(self, name: str, key: Any = None) -> Any:
        # Because named locks and variables outlive transactions, unmark_backend removes both. What
        # it needs for that is kept in the session.
        keep = ", ".join(
            f"@once_{timeout} = @@SESSION.{timeout}, SESSION {timeout} = {value}"
            for timeout, value in self._idle_timeouts().items()
        )
        tables.execute(
            self.connection, f"SET @once_work = {LOCK}, {keep}", [digest(mark_name(name))]
        )
        return tables.ask(self.connection, "SELECT GET_LOCK(@once_work, 0)") == [(1,)]

    @contextmanager
    def limiting_locks(self, seconds: float) -> Iterator[tuple[float, int | None]]:
        connection = self.connection
        limit = max(1, math.ceil(seconds))
        [(own, usual)] = tables.ask(
            connection, "SELECT @@SESSION.lock_wait_timeout, @@GLOBAL.lock_wait_timeout"
        )
        if own != usual or own <= limit:
            yield own, None
            return
        tables.execute(connection, f"SET SESSION lock_wait_timeout = {limit}")
        try:
            yield limit, None
        finally:
            with suppress(Error):  # unless the statement in between was a SET
                tables.execute(
                    connection,
                    "SET SESSION lock_wait_timeout = IF(@@SESSION.lock_wait_timeout = "
                    f"{limit}, {own}, @@SESSION.lock_wait_timeout)",
                )

    def unmark_backend(self) -> None:
        connection = self.connection
        if connection.connection is None:
            return
        restore = ", ".join(
            f"SESSION {timeout} = COALESCE(@once_{timeout}, @@SESSION.{timeout})"
            for timeout in self._idle_timeouts()
        )
        try:
            tables.execute(connection, f"SET {restore}")
            # After the transaction, because a successor that finds the lock free reads.
            tables.execute(connection, "DO IF(@once_work IS NULL, 0, RELEASE_LOCK(@once_work))")
        except Error:
            with suppress(Error):
                connection.close()

    def _idle_timeouts(self) -> dict[str, int]:
        connection: Any = self.connection
        return _IDLE_TIMEOUTS | (_IDLE_TIMEOUTS_OF_MARIADB if connection.mysql_is_mariadb else {})

    def terminate_backend(self, name: str) -> int:
        key = [digest(mark_name(name))]
        holder = f"NULLIF(IS_USED_LOCK({LOCK}), CONNECTION_ID())"
        since = monotonic()
        ended = 0
        with self.statements():
            while tables.ask(self.connection, f"SELECT {holder}", key) != [(None,)]:
                if monotonic() - since > _PATIENCE:
                    raise CannotFence(
                        "A predecessor's session was told to end, and its server still rolls back "
                        "what it did. Let it finish."
                    )
                if not ended:
                    ended = self._kill(holder, key)
                else:
                    time.sleep(0.01)
        return ended

    def _kill(self, holder: str, key: list[str]) -> int:
        try:
            # The statement itself finds the number, because a session that ended its work since
            # then may already do other work.
            tables.execute(self.connection, f"KILL CONNECTION {holder}", key)
        except Error as error:
            if self.code(error) == _NO_SUCH_THREAD:
                return 0
            if self.code(error) != _NOT_OWNER_OF_THREAD:
                raise
            connection: Any = self.connection
            grant = "CONNECTION ADMIN" if connection.mysql_is_mariadb else "CONNECTION_ADMIN"
            raise self.cannot_fence(self.role, f"{grant} ON *.*") from error
        return 1

    def code(self, error: BaseException) -> int | None:
        # The driver's own error has it: connect() raises that, which Django does not wrap
        # everywhere, and an error that says more than the driver did has it as its cause.
        own = (error.__cause__ if isinstance(error, Error) else None) or error
        is_drivers = type(own).__module__.partition(".")[0] == "MySQLdb"
        code = own.args[0] if own.args and (is_drivers or isinstance(own, Error)) else None
        return code if isinstance(code, int) else None

    def obstacle(self, error: Exception) -> str:
        if not self.is_locked(error):
            return super().obstacle(error)
        return (
            f"{super().obstacle(error)}: the server does not say which session locks the table or "
            "row, SHOW FULL PROCESSLIST lists all"
        )

    def is_lost(self, error: BaseException) -> bool:
        code = self.code(error)
        if code == _CLOSED or code in _CLIENT_ERRORS:
            return True
        if code in _REFUSED:
            return self.connection.connection is None
        return code in _LOST or code in self.read_only_errors


def _impatiently(execute: Execute, sql: str, params: Any, many: bool, context: Context) -> Any:
    """Have a statement wait for no lock, or not for long (execute_wrapper of Django).

    In autocommit it is one message and one transaction, and what it reads is committed.
    """
    connection = context["connection"]
    if connection.in_atomic_block or not connection.autocommit:
        return execute(sql, params, many, context)
    if sql.startswith(_READ):
        # A table may be about to be altered: MariaDB heeds the first limit, MySQL the second one.
        sql = sql.replace(_READ, _IMPATIENT_READ, 1)
    if not sql.startswith(_WRITES):
        return execute(sql, params, many, context)
    tables.execute(
        connection,
        "SET @once_lock_wait = @@SESSION.innodb_lock_wait_timeout, "
        "@once_table_wait = @@SESSION.lock_wait_timeout, SESSION lock_wait_timeout = 1, "
        # MySQL has no shorter one than a second.
        "SESSION innodb_lock_wait_timeout = IF(VERSION() LIKE '%MariaDB%', 0, 1)",
    )
    try:
        return execute(sql, params, many, context)
    finally:
        with suppress(Error):
            tables.execute(
                connection,
                "SET SESSION innodb_lock_wait_timeout = @once_lock_wait, "
                "SESSION lock_wait_timeout = @once_table_wait",
            )
