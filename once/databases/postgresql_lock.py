"""The lock of PostgreSQL: an advisory lock of a transaction, which a pooler lets through."""

import os
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import starmap
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases import tables
from once.databases.lock import POOL
from once.databases.messages import message, whole_savepoint
from once.databases.servers import apart
from once.databases.session_lock import SessionLock, foreign
from once.databases.standby import Place
from once.exceptions import OnceError

#: The 64-bit key of a name: eight bytes of SHA-256 over the schema of the record and the name, so
#: that the tenants of a database do not exclude each other. Before the first migration it is the
#: schema in which the record is going to be created, by the same name: quoted where it must be.
#: A function finds the schema (1259 is pg_class), because a SELECT from pg_class would keep a lock
#: on that catalog until the transaction of the lock ends.
KEY = """('x' || left(encode(sha256(convert_to(
    'once:' || coalesce(
        (pg_identify_object(1259, to_regclass(%s), 0)).schema,
        quote_ident(current_schema()), ''
    ) || ':' || %s, 'UTF8')), 'hex'), 16))::bit(64)::bigint"""

#: Other sessions that hold the lock of a key. pg_locks shows the halves of a 64-bit key in classid
#: and objid, with objsubid 1 (PostgreSQL manual, "pg_locks").
HOLDERS = """JOIN pg_locks AS l ON k.key = (l.classid::bigint << 32) | l.objid::bigint
    JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ExclusiveLock' AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.pid <> pg_backend_pid()"""

#: The locks of a name and of its standby, by number; and the same where they are known: in a new
#: session each name that is looked up in the catalog costs as much as connecting.
_KEYS = f"SELECT {KEY} AS lock, {KEY} AS standby"
_KNOWN_KEYS = "SELECT %s::bigint AS lock, %s::bigint AS standby"

#: Tries the lock of a name; where it is refused, takes the place of the standby and says so in the
#: server's list of sessions. A pooler numbers sessions as it likes. Behind a pooler there is no
#: standby, because it would keep a connection that the pooler may need to lend for the work.
_TAKE = """SELECT is_taken, is_direct, CASE
        WHEN is_taken OR NOT is_direct THEN NULL
        WHEN pg_try_advisory_xact_lock(standby) THEN set_config('application_name', %s, true) END,
        lock, standby
    FROM (SELECT pg_try_advisory_xact_lock(lock) AS is_taken, pg_backend_pid() = %s AS is_direct,
        lock, standby FROM ({keys}) AS keys) AS tried"""

#: Asks by trying, for as long as this statement lasts, in a mode that other waiters may share.
_LOOK = """SELECT pg_try_advisory_xact_lock_shared(lock),
    pg_try_advisory_xact_lock_shared(standby), lock, standby FROM ({keys}) AS keys"""

#: The holder of the lock of a name, since when it runs, and for how long it is silent.
_HOLDER = f"""SELECT a.application_name,
        greatest(0, extract(epoch FROM clock_timestamp() - a.xact_start))::int,
        extract(epoch FROM clock_timestamp() - a.state_change)::float, a.pid, a.usename
    FROM (SELECT {KEY} AS key) AS k {HOLDERS} LIMIT 1"""

#: The sessions in the way of a session, of which the first one has waited or worked for longest.
#: A prepared transaction has the number 0 (manual, "pg_blocking_pids").
_BLOCKERS = """SELECT blocker.pid, usename, coalesce(nullif(application_name, ''), backend_type),
        state, extract(epoch FROM clock_timestamp() - xact_start)::int
    FROM unnest(pg_blocking_pids(%s)) AS blocker (pid) LEFT JOIN pg_stat_activity USING (pid)
    ORDER BY xact_start LIMIT 3"""

#: Waits of the server in statements on the record that take long, all, because a pooler hides
#: which session is the work's.
_WAITS = """SELECT DISTINCT coalesce(wait_event_type || ' ' || wait_event, 'CPU')
    FROM pg_stat_activity
    WHERE datname = current_database() AND usename = session_user AND state = 'active'
      AND query ~ '"once_' AND query_start < clock_timestamp() - interval '500ms'
      AND pid <> pg_backend_pid()"""


class PostgreSQLLock(SessionLock):
    """An advisory lock in an open transaction, which the server ends where it falls silent.

    The transaction is what passes a pooler in transaction mode: it pins a server connection. Its
    ``idle_in_transaction_session_timeout`` is the liveness timeout: the server's own clock evicts a
    frozen process, a lost node and a cut cable alike.
    """

    def __init__(self, using: str, name: str, liveness: float) -> None:
        #: The keys of each lock and of its standby's, once the server was asked for them.
        self._keys: dict[str, list[int]] = {}
        #: The key of each lock as this process last saw it, by whichever session.
        self._seen: dict[str, int] = {}
        super().__init__(using, name, liveness)

    def _names(self, name: str) -> list[str]:
        connection = connections[self.using]
        return [*keyed(connection, name), *keyed(connection, f"standby {name}")]

    def _with_keys(self, sql: str, name: str) -> tuple[str, Sequence[Any]]:
        """Return SQL that begins with the keys of a lock, and the parameters for them."""
        if name in self._keys:
            return sql.format(keys=_KNOWN_KEYS), self._keys[name]
        return sql.format(keys=_KEYS), self._names(name)

    def connect(self) -> BaseDatabaseWrapper:
        connection = apart(self.like, max(2, round(self.liveness)))
        # In milliseconds, for what is sent and not acknowledged (manual, "Parameter Key Words").
        connection.settings_dict["OPTIONS"]["tcp_user_timeout"] = round(self.liveness * 1000)
        return connection

    def take(self, name: str) -> Place:
        connection: Any = connections[self.using]
        connection.ensure_connection()
        session = connection.connection.info
        settings = {
            **unlimited(connection, "statement_timeout", "lock_timeout"),
            "application_name": f"once {_this_process()}",
            "idle_in_transaction_session_timeout": milliseconds(self.liveness),
        }
        is_idle = session.transaction_status == connection.Database.pq.TransactionStatus.IDLE
        # Not REPEATABLE READ, because it would read a state from before the lock, and hold up
        # CREATE INDEX CONCURRENTLY for as long as the lock lives.
        begin = f"{'' if is_idle else 'ROLLBACK; '}BEGIN ISOLATION LEVEL READ COMMITTED"
        calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
        pairs = [part for pair in settings.items() for part in pair]
        take, names = self._with_keys(_TAKE, name)
        standby = f"once standby {_this_process()}"
        *_, [(is_taken, is_direct, place, *self._keys[name])] = message(
            connection,
            (begin, []),
            (f"SELECT {calls}", pairs),
            (take, [standby, session.backend_pid, *names]),
        )
        self._seen[name] = self._keys[name][0]
        self.is_pooled = not is_direct
        if is_taken:
            return Place.HOLDER
        return Place.NONE if place is None else Place.STANDBY

    @property
    def shared_key(self) -> str:
        # Tenants wait for locks of one name, each in its own schema.
        return f"{super().shared_key}:{self._seen[self.name]}" if self.name in self._seen else ""

    def look(self) -> bool:
        # Not the keys: this session may be in another place, which refuse_other_place tells.
        [(is_free, has_no_standby, key, _)] = self.ask(*self._with_keys(_LOOK, self.name))
        self._seen[self.name] = key
        return is_free or (has_no_standby and not self.is_pooled)

    def find_holder(self) -> bool:
        rows = self.ask(_HOLDER, keyed(connections[self.using], self.name))
        if not rows:
            self.refuse_other_place()
            return False
        # The server hides times from other roles (manual, "pg_stat_activity").
        [(name, seconds, silence, pid, role)] = rows
        name = name or ""
        since = f" for {seconds} s" if seconds is not None else ""
        process = name.removeprefix("once ").removeprefix("standby ")
        self.holder = f"{process or 'another process'}{since}"
        if not name.startswith("once "):
            session = f"pid {pid}, role {role}, application {name!r}"
            self.holder = foreign(session, f"SELECT pg_terminate_backend({pid})", since)
        self.expect_end(silence or 0.0)
        return True

    def blockers(self, session: int) -> str:
        def found() -> list[Any]:
            # Anew, because a transaction is shown the same sessions until it ends.
            self.ask("SELECT pg_stat_clear_snapshot()")
            return self.ask(_BLOCKERS, [session])

        return "; and ".join(starmap(_blocker, self.read(found)))

    def obstacle(self) -> str:
        if waits := ", ".join(wait for (wait,) in self.ask(_WAITS)):
            return f"The server itself holds it up: {waits} (pg_stat_activity)"
        if not self.is_pooled:
            return super().obstacle()
        return f"The pooler had no connection for it. {POOL}"

    def refuse_other_place(self) -> None:
        if self.name not in self._keys:
            return
        [own] = self.ask(_KEYS, self._names(self.name))
        if [*own] != self._keys[self.name]:
            [(path,)] = self.ask("SELECT current_setting('search_path')")
            raise OnceError(
                f"The lock of {self.name} belongs to another schema than its record: a second "
                f"connection to database {self.using!r} does not have the search_path of the "
                f"first one ({path}). Set it in OPTIONS, or by ALTER ROLE, or keep it in a "
                "context variable."
            )

    def leaving_nothing(self) -> AbstractContextManager[None]:
        return connections[self.using].execute_wrapper(whole_savepoint)

    def set_liveness(self) -> None:
        limit = milliseconds(self.liveness)
        self.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{limit}'")

    def show_life(self) -> None:
        # SHOW takes no snapshot. CREATE INDEX CONCURRENTLY in the holder would wait for the end of
        # a transaction that has one, which is this lock's own.
        self.ask("SHOW transaction_isolation")

    def end(self) -> None:
        self.execute("ROLLBACK")


def _blocker(pid: int, role: str, application: str, state: str, seconds: int | None) -> str:
    if not pid:
        return "a prepared transaction has: see pg_prepared_xacts"
    # The server hides state and times from other roles (manual, "pg_stat_activity").
    since = f", {state}, in a transaction for {seconds} s" if seconds is not None else ""
    return (
        f"pid {pid} has (role {role}, application {application!r}{since}): unless it ends soon, "
        f"SELECT pg_terminate_backend({pid})"
    )


def _this_process() -> str:
    # PostgreSQL cuts an application name after 63 bytes and keeps ASCII only.
    return f"{socket.gethostname()[:40]} (pid {os.getpid()})"


def unlimited(connection: Any, *timeouts: str) -> dict[str, str]:
    """Return settings that switch timeouts off, with the server's own for transactions."""
    if connection.connection.info.server_version >= 170000:
        timeouts = (*timeouts, "transaction_timeout")
    return dict.fromkeys(timeouts, "0")


def milliseconds(seconds: float) -> str:
    """Return a time as the server's settings take it."""
    return f"{round(seconds * 1000)}ms"


def keyed(connection: BaseDatabaseWrapper, name: str) -> list[str]:
    """Return the parameters of :data:`KEY`."""
    return [tables.quoted(connection, "completion"), name]
