"""Replicas of a database, and whether one is too far behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from time import monotonic
from typing import Any, NamedTuple

from django.db import DatabaseError

from once.databases import tables
from once.databases.base import Database
from once.databases.kinds import database
from once.databases.servers import ServerDatabase
from once.exceptions import ThrottleError
from once.text import one_line

#: Seconds for which a replica is waited for that was there.
_PATIENCE = 600.0

#: The end of the WAL, and of physical replicas: rows that may not be seen, replicas that replay,
#: and the place up to which all have. Without the right, all but the pid of a row is NULL (manual,
#: "pg_stat_replication"). A receiver that only keeps WAL, such as a backup, replays nothing.
_OF_PRIMARY = """SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn, f.* FROM (
    SELECT count(*) FILTER (WHERE r.state IS NULL), count(r.replay_lsn),
        min(r.replay_lsn) - '0/0'::pg_lsn
    FROM pg_stat_replication AS r LEFT JOIN pg_replication_slots AS s ON s.active_pid = r.pid
    WHERE s.slot_type IS DISTINCT FROM 'logical') AS f"""
_END = "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn"
_OF_REPLICA = "SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn WHERE pg_is_in_recovery()"


class _Gone(Exception):
    """A replica is not there, or does not follow."""


class _Seen(NamedTuple):
    """Places in the WAL at a time: its end, and where all replicas have come."""

    at: float
    end: int
    replayed: int


@dataclass(slots=True, kw_only=True)
class Replicas:
    """The replicas of a database, or one of them, watched from the first question on.

    Not by ``replay_lag`` of PostgreSQL, because it is as old as the last reply, and knows nothing
    of the time before a replica connected (manual, "pg_stat_replication").
    """

    #: Alias of the primary.
    using: str
    #: The most that a replica may be behind.
    seconds: float
    #: Alias of the one replica that is asked, or ``None`` for the primary to tell of all.
    replica: str | None = None
    #: True once the replicas were there.
    _is_met: bool = False
    #: The most that were there at once.
    _most: int = 0
    _gone_since: float | None = None
    _seen: list[_Seen] = field(default_factory=list)

    def are_behind(self) -> bool:
        """True if a replica is too far behind, or was there and is gone.

        Raises:
            ThrottleError: it was never there, or is gone for too long, or may not be asked.

        """
        now = monotonic()
        try:
            are_behind = self._ask()
        except _Gone as gone:
            self._gone_since = now if self._gone_since is None else self._gone_since
            if self._is_met and now - self._gone_since < _PATIENCE:
                return True
            lasts = f" This has lasted for {_PATIENCE:g} s." if self._is_met else ""
            raise ThrottleError(f"{gone}{lasts} Restore it, or remove the throttle.") from gone
        self._is_met, self._gone_since = True, None
        return are_behind

    def _ask(self) -> bool:
        connection = database(self.using).connection
        if connection.vendor == "postgresql":
            return self._have_to_replay(*self._replayed())
        if connection.vendor == "mysql" and self.replica is not None:
            return _seconds_behind(self.replica) > self.seconds
        remedy = "Remove replica_lag from throttle=."
        if connection.vendor == "mysql":
            remedy = "Pass replica_lag the alias of a replica in DATABASES: replica=."
        raise ThrottleError(
            f"Database {self.using!r} is {connection.display_name}, which does not tell how far "
            f"replicas are behind. {remedy}"
        )

    def _replayed(self) -> tuple[int, int]:
        """Return the end of the WAL, and the place up to which all replicas have replayed it."""
        here = database(self.using)
        if self.replica is not None:
            with here.answering():
                [(end,)] = tables.ask(here.connection, _END)
            with _asking(self.replica, here.connection.vendor) as connection:
                found = tables.ask(connection, _OF_REPLICA)
            if not found:
                raise _no_replica(self.replica)
            return int(end), int(found[0][0])
        with here.answering():
            [(end, hidden, count, replayed)] = tables.ask(here.connection, _OF_PRIMARY)
        if hidden:
            raise denied(here, "how far replicas are behind", "pg_read_all_stats")
        if not count:
            raise _Gone(f"No replica is connected to the server of database {self.using!r}.")
        if count < self._most:
            raise _Gone(f"Of {self._most} replicas, only {count} are connected to the server.")
        self._most = count
        return int(end), int(replayed)

    def _have_to_replay(self, end: int, replayed: int) -> bool:
        """True if replicas are too far behind, or will be: see :meth:`_seconds_to_replay`."""
        now = monotonic()
        then = now - self.seconds
        # A place beyond the end is that of another server, before a failover.
        known = [*(each for each in self._seen if each.end <= end), _Seen(now, end, replayed)]
        older = [each for each in known if each.at <= then]
        newer = known[len(older) :]
        self._seen = older[-1:] + newer
        # Because nothing tells when the first was written, it is due at once.
        due = newer[0].end
        if older:  # as if all between two questions was written evenly
            before, after = older[-1], newer[0]
            due = before.end + int(
                (after.end - before.end) * (then - before.at) / (after.at - before.at)
            )
        return replayed < due or self._seconds_to_replay() > self.seconds

    def _seconds_to_replay(self) -> float:
        """Return the time that replicas will need for what they have not replayed, if known.

        Because what is written now has to wait for that, a primary that writes faster than they
        replay has to stop before the lag is there. Their speed shows only while they are busy.
        """
        busy, done = 0.0, 0
        for before, after in pairwise(self._seen):
            if after.replayed < before.end:
                busy += after.at - before.at
                done += after.replayed - before.replayed
        last = self._seen[-1]
        return busy * (last.end - last.replayed) / done if done > 0 else 0.0


def _seconds_behind(replica: str) -> float:
    """Return how far a MariaDB or MySQL is behind the server that it is furthest behind."""
    with _asking(replica, "mysql") as connection, connection.cursor() as cursor:
        # Columns by name, because their order depends on the version (manual).
        is_mariadb = connection.mysql_is_mariadb
        cursor.execute("SHOW ALL SLAVES STATUS" if is_mariadb else "SHOW REPLICA STATUS")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    if not rows:
        raise _no_replica(replica)
    lags: list[Any] = [
        row.get("Seconds_Behind_Master", row.get("Seconds_Behind_Source")) for row in rows
    ]
    if None in lags:
        errors = [row[name] for row in rows for name in ("Last_IO_Error", "Last_SQL_Error")]
        why = next(filter(None, errors), "no error is recorded")
        raise _Gone(f"Replication to database {replica!r} is stopped: {why.rstrip('.')}.")
    return float(max(lags))


@contextmanager
def _asking(replica: str, vendor: str) -> Iterator[Any]:
    """A context with a connection to a replica, for one question."""
    here = database(replica)
    if here.connection.vendor != vendor:
        raise _no_replica(replica)
    try:
        with here.reading():
            yield here.connection
    except DatabaseError as error:
        if isinstance(here, ServerDatabase) and here.is_denied(error):
            is_mariadb = getattr(here.connection, "mysql_is_mariadb", False)
            grant = "REPLICA MONITOR" if is_mariadb else "REPLICATION CLIENT"
            raise denied(here, "how far it is behind", f"{grant} ON *.*") from error
        raise _Gone(f"Replica {replica!r} does not answer: {one_line(error)}.") from error


def _no_replica(alias: str) -> ThrottleError:
    return ThrottleError(
        f"Database {alias!r} is no replica of it. Pass the alias of one: replica=."
    )


def denied(here: Database, what: str, grant: str) -> ThrottleError:
    """Return the error of a role that may not see something."""
    role = here.role if isinstance(here, ServerDatabase) else "this user"
    return ThrottleError(
        f"Database {here.using!r} does not tell {role} {what}: GRANT {grant} TO {role}."
    )
