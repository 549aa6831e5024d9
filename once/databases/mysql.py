"""MySQL and MariaDB: named locks, which the server frees with the session that holds them."""

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases import mysql_server
from once.databases.base import ServerDatabase, apart
from once.exceptions import CannotFence, OnceError
from once.findings import Finding
from once.guards import Guard, Place, SessionGuard

__all__ = ["MySQL"]

#: The lock of a name, by :func:`_digest` of it. Such names count for the whole server, without
#: regard to case, and are of 64 characters at most (manual, "Locking Functions").
_LOCK = "CONCAT('once:', LEFT(SHA2(CONCAT(DATABASE(), ':', %s), 256), 48))"

#: The same of the place of its heir.
_PLACE = _LOCK.replace("once:", "once heir:")

#: What ends a session that is idle for long while a body thinks; how to take that from it, for a
#: while. The first is of every server (the least of all systems' maxima, in seconds), the others
#: are MariaDB's alone.
_IDLE_TIMEOUTS = {"wait_timeout": 2147483}
_IDLE_TIMEOUTS_OF_MARIADB = {
    "idle_transaction_timeout": 0,
    "idle_readonly_transaction_timeout": 0,
    "idle_write_transaction_timeout": 0,
}

_WRITES = ("INSERT", "UPDATE", "DELETE")

#: Seconds that a session which was told to end has for it, before that is called a problem.
_PATIENCE = 2.0

_DEADLOCK = 1213
_RECORD_HAS_CHANGED = 1020  # MariaDB, with innodb_snapshot_isolation
_LOCK_WAIT_TIMEOUT = 1205
_LOCK_NOWAIT = 3572
_NO_SUCH_THREAD = 1094
_NOT_OWNER_OF_THREAD = 1095
#: Of the server: too many connections (two kinds), not now (shutdown, offline), what it says to a
#: session that it ends, and what it could not send to one or receive from it.
_LOST = {1040, 1203, 1226, 1053, 3032, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3169, 4031}
#: Of the server, to who connects: it does not know the user, or the database.
_REFUSED = {1042, 1043, 1044, 1045, 1049, 1129, 1130}
#: Of the server, for want of a privilege.
_DENIED = {1142, 1143, 1227}
#: Of the client library (manual, "Client Error Message Reference"), and of the driver itself.
_CLIENT_ERRORS = range(2000, 3000)
_CLOSED = 0


class MySQL(ServerDatabase):
    """MySQL 8.0.13 and newer, or MariaDB, through mysqlclient; the tables in InnoDB.

    What a COMMIT acknowledges outlives a crash of the server's machine only where the server has
    ``innodb_flush_log_at_trx_commit = 1``, its default. No session can ask for it, so there is no
    :meth:`sync`.
    """

    has_fenced_ddl = True

    def guard(self, name: str, liveness: float, before: Guard | None = None) -> "NamedLockGuard":
        return NamedLockGuard(self.using, name, liveness, before)

    def holder(self, name: str) -> str | None:
        with self.guard(name, 0.0) as guard:
            return guard.holder if guard.find_holder() else None

    def held(self, names: Collection[str]) -> set[str]:
        ordered = [*names]
        questions = ", ".join([f"IS_USED_LOCK({_LOCK}) IS NOT NULL"] * len(ordered))
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT {questions}", [_digest(name) for name in ordered])
            answers = cursor.fetchone()
        return {name for name, is_held in zip(ordered, answers, strict=True) if is_held}

    def aware(self, moment: datetime) -> datetime:
        # Its clock is asked for UTC, whatever zone Django reads it in.
        return moment.replace(tzinfo=UTC)

    def statements(self) -> AbstractContextManager[None]:
        return self.connection.execute_wrapper(_impatiently)

    @contextmanager
    def work(self) -> Iterator[None]:
        with ExitStack() as marks:
            marks.callback(self._unlock_work)
            with super().work():
                # Before any hook of the body's, which may run another routine in this session.
                transaction.on_commit(marks.close, using=self.using)
                yield

    @contextmanager
    def migration(self) -> Iterator[None]:
        try:  # no transaction, which the first CREATE TABLE would end
            yield
        finally:
            self._unlock_work()

    def lock_work(self, name: str) -> bool:
        # Named locks outlive transactions, and so do variables: both go in _unlock_work. What it
        # needs for that is kept in the session, with which it is gone as well.
        keep = ", ".join(
            f"@once_{timeout} = @@SESSION.{timeout}, SESSION {timeout} = {value}"
            for timeout, value in self._idle_timeouts().items()
        )
        with self.connection.cursor() as cursor:
            cursor.execute(f"SET @once_work = {_LOCK}, {keep}", [_digest(_work(name))])
            cursor.execute("SELECT GET_LOCK(@once_work, 0)")
            return bool(cursor.fetchone()[0])

    def _unlock_work(self) -> None:
        connection = self.connection
        if connection.connection is None:
            return
        restore = ", ".join(
            f"SESSION {timeout} = COALESCE(@once_{timeout}, @@SESSION.{timeout})"
            for timeout in self._idle_timeouts()
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SET {restore}")
                # By its end the transaction is over: whoever finds the lock free may read.
                cursor.execute("DO IF(@once_work IS NULL, 0, RELEASE_LOCK(@once_work))")
        except Error:
            with suppress(Error):
                connection.close()

    def _idle_timeouts(self) -> dict[str, int]:
        connection: Any = self.connection
        return _IDLE_TIMEOUTS | (_IDLE_TIMEOUTS_OF_MARIADB if connection.mysql_is_mariadb else {})

    def end_work(self, name: str) -> int:
        key = [_digest(_work(name))]
        holder = f"NULLIF(IS_USED_LOCK({_LOCK}), CONNECTION_ID())"
        since = monotonic()
        ended = 0
        with self.statements(), self.connection.cursor() as cursor:
            while True:
                cursor.execute(f"SELECT {holder}", key)
                if cursor.fetchone()[0] is None:
                    return ended
                if monotonic() - since > _PATIENCE:
                    raise CannotFence(
                        "A predecessor's session was told to end, and its server still rolls back "
                        "what it did. Let it finish."
                    )
                if not ended:
                    ended = self._kill(cursor, holder, key)
                else:
                    time.sleep(0.01)

    def _kill(self, cursor: Any, holder: str, key: list[str]) -> int:
        try:
            # The number is found in the statement itself: a session that ended its work since
            # then may already do another.
            cursor.execute(f"KILL CONNECTION {holder}", key)
        except Error as error:
            if _code(error) == _NO_SUCH_THREAD:
                return 0
            if _code(error) != _NOT_OWNER_OF_THREAD:
                raise
            connection: Any = self.connection
            user = connection.settings_dict["USER"] or "this user"
            grant = "CONNECTION ADMIN" if connection.mysql_is_mariadb else "CONNECTION_ADMIN"
            raise CannotFence(
                f"A predecessor's transaction is still open and {user} may not end it: "
                f"GRANT {grant} ON *.* TO {user}; or end that session yourself."
            ) from error
        return 1

    def is_conflict(self, error: BaseException) -> bool:
        return _code(error) in (_DEADLOCK, _RECORD_HAS_CHANGED)

    def is_locked(self, error: BaseException) -> bool:
        return _code(error) in (_LOCK_WAIT_TIMEOUT, _LOCK_NOWAIT)

    def is_lost(self, error: BaseException) -> bool:
        code = _code(error)
        if code == _CLOSED or code in _LOST or code in _CLIENT_ERRORS:
            return True
        return code in _REFUSED and self.connection.connection is None

    def place(self) -> str:
        return mysql_server.place(self.connection)

    def examine(self) -> Iterator[Finding]:
        self.connection.ensure_connection()
        yield from mysql_server.examine(self.connection)

    def advice(self, error: BaseException) -> str:
        if _code(error) in _DENIED:
            user = self.connection.settings_dict["USER"] or "this user"
            return (
                "GRANT SELECT, INSERT, UPDATE, DELETE ON once_attempt TO "
                f"{user}; the same on once_completion, and SELECT on django_migrations."
            )
        return ""


class NamedLockGuard(SessionGuard):
    """A named lock of a session that the server closes where it falls silent.

    Its ``wait_timeout`` is the liveness timeout, in whole seconds: the server's own clock evicts a
    frozen process, a lost node and a cut cable alike.
    """

    def connect(self) -> BaseDatabaseWrapper:
        seconds = _whole(self.liveness)
        connection = apart(self.like, seconds)
        connection.settings_dict["OPTIONS"] |= {
            "read_timeout": seconds,
            "write_timeout": seconds,
            "isolation_level": "read committed",
        }
        return connection

    def take(self) -> Place:
        is_new = connections[self.using].connection is None
        connections[self.using].ensure_connection()
        if is_new:
            for fault in mysql_server.refusals(connections[self.using]):
                raise OnceError(f"Database {self.using!r}: {fault.message} {fault.hint}")
        else:
            self.end()
        self.set_liveness()
        if self._try(_LOCK):
            return Place.HOLDER
        return Place.HEIR if self._try(_PLACE) else Place.NONE

    def _try(self, lock: str) -> bool:
        with connections[self.using].cursor() as cursor:
            cursor.execute(f"SELECT GET_LOCK({lock}, 0)", [_digest(self.name)])
            return bool(cursor.fetchone()[0])

    def look(self) -> bool:
        with connections[self.using].cursor() as cursor:
            cursor.execute(
                f"SELECT IS_FREE_LOCK({_LOCK}), IS_FREE_LOCK({_PLACE})", [_digest(self.name)] * 2
            )
            is_free, has_no_heir = cursor.fetchone()
        return bool(is_free or has_no_heir)

    def find_holder(self) -> bool:
        with connections[self.using].cursor() as cursor:
            # Without the right to PROCESS, the list has the sessions of the same user only.
            cursor.execute(
                "SELECT held.session, p.HOST, p.TIME "
                f"FROM (SELECT IS_USED_LOCK({_LOCK}) AS session) AS held "
                "LEFT JOIN information_schema.PROCESSLIST AS p ON p.ID = held.session",
                [_digest(self.name)],
            )
            session, host, silence = cursor.fetchone()
        if session is None:
            return False
        address = str(host or "another process")  # with the port, but for a socket file
        self.holder = f"{address.rpartition(':')[0] or address} (session {session})"
        self.expect_end(float(silence or 0))
        return True

    def set_liveness(self) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute(f"SET SESSION wait_timeout = {_whole(self.liveness)}")

    def end(self) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute("SELECT RELEASE_ALL_LOCKS()")


def _impatiently(
    execute: Callable[[str, Any, bool, dict[str, Any]], Any],
    sql: str,
    params: Any,
    many: bool,
    context: dict[str, Any],
) -> Any:
    """Have a statement wait for no lock, or not for long (execute_wrapper of Django).

    In autocommit it is one message and one transaction, and what it reads is committed.
    """
    connection = context["connection"]
    if connection.in_atomic_block or not connection.autocommit or not sql.startswith(_WRITES):
        return execute(sql, params, many, context)
    with connection.cursor() as cursor:
        cursor.execute(
            "SET @once_lock_wait = @@SESSION.innodb_lock_wait_timeout, "
            # MySQL has no shorter one than a second.
            "SESSION innodb_lock_wait_timeout = IF(VERSION() LIKE '%MariaDB%', 0, 1)"
        )
    try:
        return execute(sql, params, many, context)
    finally:
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = @once_lock_wait")


def _work(name: str) -> str:
    return f"work {name}"  # no guard's name holds a space


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()  # the same in each connection's charset


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def _code(error: BaseException) -> int | None:
    # Of the driver's own error: connect() raises that, which Django does not wrap everywhere, and
    # one that says more than the driver did has it as its cause.
    found = (error.__cause__ if isinstance(error, Error) else None) or error
    is_drivers = type(found).__module__.partition(".")[0] == "MySQLdb"
    code = found.args[0] if found.args and (is_drivers or isinstance(found, Error)) else None
    return code if isinstance(code, int) else None
