"""The lock of MySQL and MariaDB: a named lock, which the server frees with its session."""

import hashlib
import math
from collections.abc import Iterator

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases import tables
from once.databases.servers import apart
from once.databases.session_lock import SessionLock, foreign
from once.databases.standby import Place
from once.exceptions import OnceError

#: The lock of a name, by :func:`digest` of it. Such names count for the whole server, without
#: regard to case, and are of 64 characters at most (manual, "Locking Functions").
LOCK = "CONCAT('once:', LEFT(SHA2(CONCAT(DATABASE(), ':', %s), 256), 48))"

#: The same of the place of its standby.
_PLACE = LOCK.replace("once:", "once standby:")

#: A lock by which a session is known to be of once: the server shows no name of a program.
OWN = "CONCAT('once session:', COALESCE({session}, 0))"  # MySQL refuses NULL as a name


class MySQLLock(SessionLock):
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

    def take(self, name: str) -> Place:
        connection = connections[self.using]
        is_new = connection.connection is None
        connection.ensure_connection()
        if is_new:
            for _, message, hint in refusals(connection):
                raise OnceError(f"Database {self.using!r}: {message} {hint}")
        else:
            self.end()
        self.set_liveness()
        if self._try(LOCK, name):
            return Place.HOLDER
        return Place.STANDBY if self._try(_PLACE, name) else Place.NONE

    def take_again(self, name: str) -> Place:
        return Place.HOLDER if self._try(LOCK, name) else Place.STANDBY

    def _try(self, lock: str, name: str) -> bool:
        return self.ask(f"SELECT GET_LOCK({lock}, 0)", [digest(name)]) == [(1,)]

    def look(self) -> bool:
        question = f"SELECT IS_FREE_LOCK({LOCK}), IS_FREE_LOCK({_PLACE})"
        [(is_free, has_no_standby)] = self.ask(question, [digest(self.name)] * 2)
        return bool(is_free or has_no_standby)

    def find_holder(self) -> bool:
        # Without the right to PROCESS, the list has the sessions of the same user only.
        [(session, own, user, host, silence)] = self.ask(
            f"SELECT holder.session, IS_USED_LOCK({OWN.format(session='holder.session')}), "
            "p.USER, p.HOST, p.TIME "
            f"FROM (SELECT IS_USED_LOCK({LOCK}) AS session) AS holder "
            "LEFT JOIN information_schema.PROCESSLIST AS p ON p.ID = holder.session",
            [digest(self.name)],
        )
        if session is None:
            return False
        address = str(host or "another process")  # with the port, but for a socket file
        address = address.rpartition(":")[0] or address
        self.holder = f"{address} (session {session})"
        if own != session:
            identity = f"user {user}, host {address}" if user else "of another user"
            self.holder = foreign(f"id {session}, {identity}", f"KILL {session}")
        self.expect_end(float(silence or 0))
        return True

    def set_liveness(self) -> None:
        own = f"@once_session = GET_LOCK({OWN.format(session='CONNECTION_ID()')}, 0)"
        self.execute(f"SET {own}, SESSION wait_timeout = {_whole(self.liveness)}")

    def end(self) -> None:
        self.ask("SELECT RELEASE_ALL_LOCKS()")


def refusals(connection: BaseDatabaseWrapper) -> Iterator[tuple[str, str, str]]:
    """Yield what makes the promise impossible to keep: a word, a sentence and the next step."""
    values = variables(connection, "wsrep_on", "group_replication_single_primary_mode")
    if values.get("wsrep_on") == "ON":
        yield (
            "cluster",
            "It is a node of a Galera cluster: each of them grants the same lock.",
            "Keep routines in a database of a single server, by using=.",
        )
    if values.get("group_replication_single_primary_mode") == "OFF":
        yield (
            "cluster",
            "Its group has several primaries: each of them grants the same lock.",
            "Switch the group to a single primary.",
        )
    names = [tables.name(model) for model in tables.MODELS]
    others = tables.ask(
        connection,
        "SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
        f"AND TABLE_NAME IN ({', '.join(['%s'] * len(names))}) AND ENGINE <> 'InnoDB'",
        names,
    )
    for table, engine in others:
        yield (
            "engine",
            f"The table {table} is kept by {engine}: only InnoDB rolls back as is needed.",
            f"ALTER TABLE {table} ENGINE = InnoDB; and so for the tables of your models.",
        )


def variables(connection: BaseDatabaseWrapper, *names: str) -> dict[str, str]:
    """Return the values of a server's variables, as far as it has them."""
    wanted = ", ".join(f"'{name}'" for name in names)
    return dict(tables.ask(connection, f"SHOW VARIABLES WHERE Variable_name IN ({wanted})"))


def digest(name: str) -> str:
    """Return what stands for a name: the same in each connection's charset."""
    return hashlib.sha256(name.encode()).hexdigest()


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
