"""What ends sessions and servers."""

import os
import signal
import time
from contextlib import closing

import psycopg

from tests.project import Project
from tests.servers import embedded_postgresql
from tests.waiting import wait_until

__all__ = [
    "LOCK",
    "LOCKS",
    "RESTING",
    "ROWS",
    "WORK",
    "Server",
    "changes",
    "end_sessions",
    "session_of",
    "terminate",
]

#: The session that holds a lock, not the one of its standby; and the one that holds a work lock.
#: While the first shows life, its state is another for a moment.
LOCK = (
    "application_name LIKE 'once %' AND application_name NOT LIKE 'once standby %' "
    "AND state = 'idle in transaction'"
)
WORK = (
    "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory') "
    "AND application_name NOT LIKE 'once %'"
)

#: Counts in each of eight rows that it was changed; its first attempt holds before every batch,
#: and has no work session while it rests between two.
RESTING = """
    from django.db.models import F
    from once.signals import attempt_started, progressed
    from tests.shop.models import Counted


    @routine(over=lambda: Counted.objects.order_by("pk"), batch_size=2, rest=0.01)
    def backfill(rows):
        pks = [row.pk for row in rows]
        Counted.objects.filter(pk__in=pks).update(counter=F("counter") + 1)


    def rest(sender, attempt, **kwargs):
        if attempt.number == 1:
            hold(f"done{attempt.processed}")


    attempt_started.connect(rest)
    progressed.connect(rest)
"""
ROWS = "INSERT INTO shop_counted (counter) SELECT 0 FROM generate_series(1, 8)"


#: The same in MariaDB: both have a named lock, and a lock has no transaction.
_LOCKS = (
    "SELECT THREAD_ID FROM information_schema.METADATA_LOCK_INFO WHERE TABLE_SCHEMA LIKE 'once:%'"
)
_TRANSACTIONS = "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX"
LOCKS = f"ID IN ({_LOCKS}) AND ID NOT IN ({_TRANSACTIONS})"
_SESSIONS = (
    "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()"
)
_IN_MARIADB = {LOCK: LOCKS, WORK: f"ID IN ({_LOCKS}) AND ID IN ({_TRANSACTIONS})"}


def session_of(project: Project, where: str) -> int:
    """The one session of which something is true, once that is so."""
    sessions = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        f"AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND {where}"
    )
    if project.is_mysql:
        sessions = f"{_SESSIONS} AND {_IN_MARIADB.get(where, where)}"
    found: list[tuple[int]] = []

    def is_one() -> bool:
        found[:] = project.rows(sessions)
        return len(found) == 1

    wait_until(is_one, what=lambda: f"one session, not {found}")
    return found[0][0]


def terminate(project: Project, where: str) -> None:
    """End the one session of which something is true, and wait for its end."""
    session = session_of(project, where)
    if project.is_mysql:
        project.execute(f"KILL CONNECTION {session}")
        wait_until(lambda: not project.rows(f"{_SESSIONS} AND ID = {session}"))
    else:
        assert project.rows(f"SELECT pg_terminate_backend({session}, 5000)") == [(True,)]


def end_sessions(project: Project) -> None:
    """End all sessions of a project's processes, and wait for their end."""
    if project.is_mysql:
        for (session,) in project.rows(_SESSIONS):
            project.execute(f"KILL CONNECTION {session}")
        wait_until(lambda: not project.rows(_SESSIONS), what="the end of the sessions")
        return
    ended = project.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    assert ended
    assert all(is_ended for (is_ended,) in ended)


def changes(project: Project) -> list[int]:
    """How often each of the rows was changed."""
    return [count for (count,) in project.rows("SELECT counter FROM shop_counted ORDER BY id")]


class Server:
    """A PostgreSQL that a test may stop, crash and configure."""

    def __init__(self) -> None:
        self._server = embedded_postgresql()
        self.url = self._server.get_uri()
        self._standby = self._server.pgdata / "standby.signal"
        self._writer: int | None = None

    def execute(self, sql: str) -> None:
        """Do something in a database that no project uses."""
        with psycopg.connect(self.url, autocommit=True) as session:
            session.execute(sql)

    def hold_commits(self) -> None:
        """Have every COMMIT wait, done but invisible, for a replica that there is not."""
        self.execute("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
        self.execute("SELECT pg_reload_conf()")
        wait_until(self._holds_commits, what="the server to heed its configuration")

    def release_commits(self) -> None:
        """Have every COMMIT that waits return."""
        self.execute("ALTER SYSTEM RESET synchronous_standby_names")
        self.execute("SELECT pg_reload_conf()")

    def waiting_commits(self) -> list[int]:
        """The backends whose COMMIT waits."""
        sql = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' ORDER BY pid"
        with psycopg.connect(self.url, autocommit=True) as session:
            return [pid for (pid,) in session.execute(sql)]

    def stop(self) -> None:
        """Stop it, and with it all of its sessions."""
        self._server.stop()

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def follow(self) -> None:
        """Have it start as a standby next time."""
        self._standby.touch()

    def restart(self) -> None:
        """Stop it and start it, as some of its configuration wants."""
        self.stop()
        self.start()

    def keep_commits_in_memory(self) -> None:
        """From now on, write no COMMIT to disk for which nobody waits."""
        self._writer = self._writers_pid()
        os.kill(self._writer, signal.SIGSTOP)

    def crash(self) -> None:
        """Lose everything that is in memory only, and wait for the recovery."""
        writer = self._writer or self._writers_pid()
        os.kill(writer, signal.SIGKILL)
        self._writer = None
        wait_until(lambda: self._recovered_from(writer), what="the recovery of the server")

    def restore(self) -> None:
        """Make it as it was before."""
        if self._standby.exists():
            self.stop()
            self._standby.unlink()
        self.start()
        if self._writer is not None:
            os.kill(self._writer, signal.SIGCONT)
            self._writer = None
        self.release_commits()

    def end(self) -> None:
        """End it for good."""
        self._server.cleanup()

    def _holds_commits(self) -> bool:
        with closing(psycopg.connect(self.url)) as probe:
            probe.pgconn.send_query(b"SELECT pg_logical_emit_message(true, 'once', 'probe')")
            pid = probe.pgconn.backend_pid
            while pid not in self.waiting_commits():
                probe.pgconn.consume_input()
                if not probe.pgconn.is_busy():
                    return False
                time.sleep(0.01)
        with psycopg.connect(self.url, autocommit=True) as session:
            session.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        return True

    def _writers_pid(self) -> int:
        sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
        with psycopg.connect(self.url, autocommit=True) as session:
            [(pid,)] = session.execute(sql).fetchall()
        return int(pid)

    def _recovered_from(self, writer: int) -> bool:
        try:
            return self._writers_pid() != writer
        except (psycopg.OperationalError, ValueError):
            return False
