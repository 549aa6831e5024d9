"""Throttles for batches, each made by a call: ``throttle=[replica_lag(seconds=2)]``.

A throttle takes the run. It returns 0, and the next batch begins; or a number of seconds, and it is
asked again after these, or after a second. It raises if it cannot see what it is to look at.
"""

from functools import lru_cache
from typing import Any

from django.db import DatabaseError

from once import conf
from once.databases import database, tables
from once.databases.replicas import Replicas, denied
from once.databases.servers import ServerDatabase
from once.exceptions import RoutineError, ThrottleError
from once.routines.base import Run, Throttle

__all__ = ["lock_waits", "replica_lag", "wal_archiving"]

#: Seconds after which a throttle in the way is to be asked again.
_AGAIN = 1.0

#: Sessions of this database that wait for a lock. Not for advisory locks, because the standby of a
#: routine's own lock waits for one. Every role sees them (manual, "pg_locks").
_WAITING = """SELECT count(DISTINCT l.pid) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE NOT l.granted AND l.locktype <> 'advisory' AND a.datname = current_database()
        AND l.waitstart < clock_timestamp() - %s * interval '1 second'"""

#: Files of WAL that are yet to be archived (manual, "pg_ls_archive_statusdir").
_READY = """SELECT current_setting('archive_mode'), count(*) FILTER (WHERE name LIKE '%.ready')
    FROM pg_ls_archive_statusdir()"""


def replica_lag(seconds: float = 2.0, *, replica: str | None = None) -> Throttle:
    """Return a throttle that waits while a replica is too far behind.

    On PostgreSQL, every replica has to have replayed what its primary had written so many seconds
    ago, and to need no longer for the rest at the speed that it shows. The primary tells, to roles
    with the privileges of ``pg_read_all_stats``. MariaDB and MySQL are asked for
    ``Seconds_Behind_Master``, which a replica alone knows.

    A replica that was there, and is gone, is waited for. After ten minutes the attempt fails, and
    the next attempt goes by the replicas that are connected then.

    Args:
        seconds: the most that a replica may be behind, from 0.1; 2 by default.
        replica: alias of the one replica to ask, in ``DATABASES``. Needed on MariaDB and MySQL.
            PostgreSQL asks no privilege for it.

    Returns:
        The throttle. It raises :exc:`once.exceptions.ThrottleError` if there is no replica, or the
        role may not see it.

    Raises:
        RoutineError: an argument is invalid.

    """
    if replica is not None and not (isinstance(replica, str) and replica):
        raise RoutineError(f"replica_lag(replica={replica!r}): pass an alias of DATABASES.")
    shown = "" if replica is None else f", replica={replica!r}"
    name = f"replica_lag(seconds={_seconds('replica_lag', seconds):g}{shown})"

    @lru_cache(maxsize=1)
    def watched(using: str, key: str, attempt: int) -> Replicas:
        """Return the replicas that an attempt watches; the next attempt begins anew."""
        return Replicas(using=using, seconds=seconds, replica=replica)

    def throttle(run: Run) -> float:
        return _AGAIN if watched(run.using, run.key, run.attempt).are_behind() else 0.0

    return _named(throttle, name)


def lock_waits(seconds: float = 1.0, *, sessions: int = 1) -> Throttle:
    """Return a throttle that waits while sessions wait for locks, on PostgreSQL.

    All sessions in the routine's database count, and all locks but advisory locks. It needs no
    privilege.

    Args:
        seconds: a session counts when it has waited for so long, from 0.1; 1 by default.
        sessions: the number of sessions at which the next batch waits, from 1; 1 by default.

    Returns:
        The throttle. It raises :exc:`once.exceptions.ThrottleError` on another database.

    Raises:
        RoutineError: an argument is invalid.

    """
    least = _count("lock_waits", "sessions", sessions)
    name = f"lock_waits(seconds={_seconds('lock_waits', seconds):g}, sessions={least})"

    def throttle(run: Run) -> float:
        here = _postgresql(run, "lock_waits")
        with here.answering():
            [(waiting,)] = tables.ask(here.connection, _WAITING, [seconds])
        return _AGAIN if waiting >= least else 0.0

    return _named(throttle, name)


def wal_archiving(files: int = 10) -> Throttle:
    """Return a throttle that waits while PostgreSQL has much WAL to archive.

    It needs the privileges of ``pg_monitor``.

    Args:
        files: the number of files that are yet to be archived at which the next batch waits, from
            1; 10 by default, which is 160 MB of WAL unless the server was set up otherwise.

    Returns:
        The throttle. It raises :exc:`once.exceptions.ThrottleError` if the server archives nothing,
        the role may not see it, or the database is another.

    Raises:
        RoutineError: the argument is invalid.

    """
    least = _count("wal_archiving", "files", files)

    def throttle(run: Run) -> float:
        here = _postgresql(run, "wal_archiving")
        try:
            with here.answering():
                [(mode, waiting)] = tables.ask(here.connection, _READY)
        except DatabaseError as error:
            if here.is_denied(error):
                raise denied(here, "which WAL is yet to be archived", "pg_monitor") from error
            raise
        if mode == "off":
            raise ThrottleError(
                f"The server of database {run.using!r} archives no WAL (archive_mode is off). "
                "Remove wal_archiving from throttle=."
            )
        return _AGAIN if waiting >= least else 0.0

    return _named(throttle, f"wal_archiving(files={least})")


def _postgresql(run: Run, name: str) -> ServerDatabase:
    here = database(run.using)
    if here.connection.vendor != "postgresql" or not isinstance(here, ServerDatabase):
        raise ThrottleError(
            f"Database {run.using!r} is {here.connection.display_name}, and {name} is for "
            "PostgreSQL alone. Remove it from throttle=."
        )
    return here


def _seconds(name: str, value: float) -> float:
    if not conf.is_seconds(value, 0.1):
        raise RoutineError(
            f"{name}(seconds={value!r}): pass a number of seconds from 0.1 to {conf.DAY:g}."
        )
    return value


def _count(name: str, option: str, value: int) -> int:
    if type(value) is not int or value < 1:
        raise RoutineError(f"{name}({option}={value!r}): pass an integer from 1.")
    return value


def _named(throttle: Any, name: str) -> Throttle:
    """Return a throttle with the name by which people know it."""
    throttle.__name__ = throttle.__qualname__ = name
    made: Throttle = throttle
    return made
