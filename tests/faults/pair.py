"""A PostgreSQL and its standby."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from tests.servers import embedded_postgresql
from tests.waiting import wait_until

__all__ = ["Pair"]


class Pair:
    """A primary and its standby, each reached by a socket of its own."""

    def __init__(self) -> None:
        self._primary: Any = embedded_postgresql()
        self.url: str = self._primary.get_uri()
        self._stopped = 0
        self._data = tempfile.mkdtemp(prefix="once-standby-")  # short, as sockets want it
        user = self._primary.system_user
        if user:
            shutil.chown(self._data, user)
        self._as_user = ["runuser", "-u", user, "--"] if user else []
        source = f"host={self._primary.pgdata} user=postgres"
        self._run("pg_basebackup", "-d", source, "-D", self._data, "-R", "-c", "fast")
        for file in Path(self._data).glob(".s.PGSQL.*"):
            file.unlink()  # the primary's, copied with the rest
        self.start_standby()
        self.standby_url = f"postgresql://postgres@/postgres?host={self._data}"

    def commit_on_both(self) -> None:
        """Have every COMMIT wait until the standby has it as well."""
        with psycopg.connect(self.url, autocommit=True) as session:
            session.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            session.execute("SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication"
        wait_until(lambda: self.ask(self.url, state) == [("sync",)], what="the standby")

    def stop_sending(self) -> None:
        """Have the standby get nothing any more, once it has all there is."""
        lag = "SELECT pg_current_wal_flush_lsn() - flush_lsn FROM pg_stat_replication"
        wait_until(lambda: self.ask(self.url, lag) == [(0,)], what="the standby")
        [(self._stopped,)] = self.ask(self.url, "SELECT pid FROM pg_stat_replication")
        os.kill(self._stopped, signal.SIGSTOP)

    def pause_replay(self) -> None:
        """Have the standby get everything, and show nothing of it, once it shows all there is."""
        lag = "SELECT pg_current_wal_flush_lsn() - replay_lsn FROM pg_stat_replication"
        wait_until(lambda: self.ask(self.url, lag) == [(0,)], what="the standby")
        self.ask(self.standby_url, "SELECT pg_wal_replay_pause()::text")

    def resume_replay(self) -> None:
        """Have it show again what comes."""
        self.ask(self.standby_url, "SELECT pg_wal_replay_resume()::text")

    def stop_standby(self) -> None:
        """Stop the standby, which leaves."""
        self._control("-m", "immediate", "stop")
        wait_until(lambda: not self.ask(self.url, "SELECT pid FROM pg_stat_replication"))

    def start_standby(self) -> None:
        """Start the standby, where it is not running."""
        self._control("-o", f"-h '' -k {self._data}", "start")

    def promote(self) -> None:
        """Make the standby a primary; the old one goes on, and knows nothing of it."""
        self._control("promote")

    def ask(self, url: str, sql: str) -> list[tuple[Any, ...]]:
        """What a server says."""
        with psycopg.connect(url, autocommit=True) as session:
            return session.execute(sql).fetchall()

    def end_old(self) -> None:
        """End the old primary, as a cluster's manager does once it sees it again."""
        self._primary.cleanup()

    def end(self) -> None:
        """End both."""
        if self._stopped:
            os.kill(self._stopped, signal.SIGCONT)
        self._control("-m", "immediate", "stop")
        self._primary.cleanup()
        shutil.rmtree(self._data)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-w", "-D", self._data, "-l", f"{self._data}/log", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, f"{self._primary.bin_path}/{program}", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")
