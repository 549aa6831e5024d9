"""A standby that is promoted: with synchronous commit exactly once, without it nothing by half."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.balancer import moved
from tests.faults.support import RESTING, ROWS, changes
from tests.project import Project, with_database
from tests.servers import embedded_postgresql
from tests.waiting import wait_until

ROUTINES = """
    @routine
    def first():
        effect("first")


    @routine(after=[first])
    def second(run):
        effect("second")
        hold(f"second{run.attempt}")


    @routine(over=lambda: range(1, 5), batch_size=2, after=[first])
    def batched(items, run):
        for item in items:
            effect(f"batched{item}")
        if 3 in items:
            hold(f"batched{run.attempt}")
"""
NAMES = ["plant.second", "plant.batched"]
EACH_ONCE = ["batched1", "batched2", "batched3", "batched4", "first", "second"]


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
        self._control("-o", f"-h '' -k {self._data}", "start")
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


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.end()


@pytest.fixture
def project(pair: Pair, tmp_path: Path) -> Iterator[Project]:
    """A project on the primary, which is looked at through the standby once that is promoted."""
    with psycopg.connect(pair.url, autocommit=True) as session:
        session.execute("CREATE DATABASE once_project")
    url = with_database(pair.url, "once_project")
    project = Project(tmp_path / "project", url, url)
    project.routines(ROUTINES)
    migrating = project.manage("migrate", "-v0")
    assert migrating.finish() == 0, migrating.output
    yield project
    project.close()


def test_failover_where_commits_are_on_both(pair: Pair, project: Project) -> None:
    pair.commit_on_both()
    assert project.once("run", "plant.first").finish() == 0
    holders = [project.once("run", name) for name in NAMES]
    project.wait_for("second1")
    project.wait_for("batched1")
    pair.promote()
    # The network is split: the old primary still lives, and its holders have their locks.
    project.release("second1")
    project.release("batched1")
    project.admin_url = project.url = with_database(pair.standby_url, "once_project")
    successors = [project.once("run", name, DATABASE_URL=project.url) for name in NAMES]
    project.wait_for("second2")
    project.wait_for("batched2")
    assert project.effects() == ["batched1", "batched2", "first"]
    project.release("second2")
    project.release("batched2")
    for successor in successors:
        assert successor.finish() == 0, successor.output
    for holder in holders:  # none is told that what it did is committed
        assert holder.is_running(), holder.output
    pair.end_old()
    for holder in holders:
        holder.kill()
    assert project.effects() == EACH_ONCE
    assert project.completions() == ["plant.batched", "plant.first", "plant.second"]


def test_failover_that_loses_commits(pair: Pair, project: Project) -> None:
    pair.stop_sending()
    for point in ("second1", "batched1"):
        project.release(point)
    lost = project.once("run")
    assert lost.finish() == 0, lost.output
    assert project.effects() == EACH_ONCE
    pair.promote()
    project.admin_url = project.url = with_database(pair.standby_url, "once_project")
    assert (project.effects(), project.completions(), project.attempts()) == ([], [], [])
    again = project.once("run", DATABASE_URL=project.url)
    assert again.finish() == 0, again.output
    assert project.effects() == EACH_ONCE


@pytest.mark.parametrize("kept", [None, 0, 2])
def test_address_that_moves_between_batches_to_a_standby_that_lagged(
    pair: Pair, project: Project, kept: int | None
) -> None:
    """The lock's session stays on the old primary, and answers there."""
    project.routines(RESTING)
    project.execute(ROWS)
    servers = [pair.url]
    if kept is None:
        pair.stop_sending()
    with moved(servers, "once_project") as url:
        project.release("done8")  # where the row was lost, the next attempt is the first as well
        process = project.once("run", DATABASE_URL=url, ONCE_LIVENESS_TIMEOUT="60")
        for done in (0, 2, 4, 6):
            project.wait_for(f"done{done}")
            if done == kept:
                pair.stop_sending()
            if done == 6:
                pair.promote()
                servers.append(pair.standby_url)
                project.admin_url = with_database(pair.standby_url, "once_project")
                assert changes(project) == [1] * (kept or 0) + [0] * (8 - (kept or 0))
            project.release(f"done{done}")
        assert process.finish() == 0, process.output
    assert changes(project) == [1] * 8
    assert project.completions() == ["plant.backfill"]


#: The second comes after nothing, and the third after what was done before the process began.
PASS = """
    @routine
    def first():
        effect("first")


    @routine
    def second(run):
        effect("second")
        hold(f"second{run.attempt}")


    @routine(after=[first])
    def third():
        effect("third")
"""


#: A connection that is open as the run begins, and afterwards.
EARLY = """
    @routine(scope="process")
    def early():
        from django.db import connection

        connection.ensure_connection()
"""


@pytest.mark.parametrize("is_found_open", [False, True])
def test_address_that_moves_in_a_pass_to_a_standby_that_lagged(
    pair: Pair, project: Project, is_found_open: bool
) -> None:
    """What was done before the process began is lost with what it does on the old primary."""
    project.routines(PASS + EARLY * is_found_open)
    pair.stop_sending()
    assert project.once("run", "plant.first").finish() == 0
    servers = [pair.url]
    with moved(servers, "once_project") as url:
        process = project.once("run", DATABASE_URL=url)
        project.wait_for("second1")
        pair.promote()
        servers.append(pair.standby_url)
        project.admin_url = with_database(pair.standby_url, "once_project")
        project.release("second1")
        assert process.finish() == 0, process.output
    assert "was done, and is not any more: the database lost commits" in process.output
    assert project.effects() == ["first", "second", "third"]
    assert project.completions() == ["plant.first", "plant.second", "plant.third"]
