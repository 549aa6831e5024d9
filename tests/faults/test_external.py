"""Sessions that end during an external body: the recording is repeated, the body is not."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.faults.support import LOCK, LOCKS, WORK, terminate
from tests.project import Project
from tests.servers import PgBouncer, database_url
from tests.shop.calls import calls
from tests.waiting import wait_until

ANNOUNCE = """
    from tests.shop.calls import note


    @routine(atomic=False)
    def announce(run):
        note("announce", run)
        effect("announced")  # which leaves a session open, idle outside of any transaction
        hold("body")
"""
BODYS_OWN = "state = 'idle' AND application_name NOT LIKE 'once %'"
SERVERS = pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])


def assert_called_and_recorded_once(project: Project) -> None:
    assert [call.attempt for call in calls(project.directory, "announce")] == [1]
    assert project.effects() == ["announced"]
    assert project.attempts() == [("plant.announce", 1, "succeeded")]
    assert project.completions() == ["plant.announce"]


@SERVERS
def test_bodys_own_session_terminated(project: Project) -> None:
    project.routines(ANNOUNCE)
    process = project.once("run")
    project.wait_for("body")
    terminate(project, "COMMAND = 'Sleep' AND NOT " + LOCKS if project.is_mysql else BODYS_OWN)
    project.release("body")
    assert process.finish() == 0, process.output
    assert_called_and_recorded_once(project)


@SERVERS
def test_recording_session_terminated(project: Project) -> None:
    project.routines(ANNOUNCE)
    project.release("body")
    process = project.once("run", TEST_HOLD="once.record.recorder:complete=after:recording")
    project.wait_for("recording")
    terminate(project, WORK)
    project.release("recording")
    assert process.finish() == 0, process.output
    assert_called_and_recorded_once(project)


@SERVERS
def test_lock_terminated_and_nobody_takes_over(project: Project) -> None:
    project.routines(
        """
        from once.exceptions import LockLost
        from tests.shop.calls import note


        @routine(atomic=False)
        def announce(run):
            note("announce", run)
            effect("announced")
            reach("body")
            try:
                while True:
                    run.check()
                    time.sleep(0.01)
            except LockLost as error:
                print("told:", error)
        """
    )
    process = project.once("run")
    project.wait_for("body")
    terminate(project, LOCK)
    assert process.finish() == 0, process.output
    assert re.search("told: The lock of plant.announce was lost", process.output)
    assert_called_and_recorded_once(project)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_lock_terminated_is_not_yet_held_to_who_waits(project: Project) -> None:
    project.routines(
        """
        from tests.shop.calls import note


        @routine(atomic=False, retry=False)
        def announce(run):
            note("announce", run)
            effect("announced")
            hold("body")
        """
    )
    process = project.once("run")
    project.wait_for("body")
    terminate(project, LOCK)
    waiter = project.once("wait", ONCE_LIVENESS_TIMEOUT="120")
    waiter.wait_for("runs without its lock, or died")
    impatient = project.once("wait")  # which believes it after 2 s
    assert impatient.finish() == 5, impatient.output
    assert "once reset plant.announce" in impatient.output
    project.release("body")
    assert process.finish() == 0, process.output
    assert waiter.finish() == 0, waiter.output
    assert_called_and_recorded_once(project)


@SERVERS
def test_lock_terminated_and_another_takes_over(project: Project) -> None:
    project.routines(
        """
        from tests.shop.calls import note


        @routine(atomic=False)
        def announce(run):
            note("announce", run)
            reach(f"body{run.attempt}")
            while run.attempt == 1:
                run.check()
                time.sleep(0.01)
        """
    )
    first = project.once("run", TEST_HOLD="once.engine.verdict:conclude=told")
    project.wait_for("body1")
    second = project.once("run")
    second.wait_for("Waiting")
    terminate(project, LOCK)
    assert second.finish() == 0, second.output
    project.wait_for("told")
    project.release("told")
    assert first.finish() == 0, first.output
    assert "Attempt 1 lost its right to commit, because another process took over" in first.output
    [one, two] = calls(project.directory, "announce")
    assert (one.pid, one.attempt) == (first.pid, 1)
    assert (two.pid, two.attempt) == (second.pid, 2)
    assert one.key == two.key
    assert project.attempts() == [("plant.announce", 1, "lost"), ("plant.announce", 2, "succeeded")]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_roles_idle_session_timeout_passes_during_the_body(project: Project) -> None:
    [(name,)] = project.rows("SELECT current_database()")
    project.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '100ms'")
    project.routines(ANNOUNCE)
    process = project.once("run")
    project.wait_for("body")
    sql = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {BODYS_OWN}"
    )
    wait_until(lambda: project.rows(sql) == [(0,)], what="the end of the body's session")
    project.release("body")
    assert process.finish() == 0, process.output
    assert_called_and_recorded_once(project)


@pytest.fixture
def pooler(tmp_path: Path) -> Iterator[PgBouncer]:
    pooler = PgBouncer(tmp_path / "pooler", database_url(), 5, "client_idle_timeout = 1")
    yield pooler
    pooler.stop()


@pytest.mark.parametrize("kind", ["postgresql"])
def test_poolers_client_idle_timeout_passes_during_the_body(
    project: Project, pooler: PgBouncer
) -> None:
    [(database,)] = project.rows("SELECT current_database()")
    project.routines(ANNOUNCE)
    console = psycopg.connect(
        pooler.url("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor
    )
    with closing(console):
        process = project.once("run", DATABASE_URL=pooler.url(database))
        project.wait_for("body")

        def clients() -> int:
            return sum(database in row for row in console.execute("SHOW CLIENTS"))

        wait_until(lambda: clients() == 1, what="all but the lock to be sent away")
    project.release("body")
    assert process.finish() == 0, process.output
    assert_called_and_recorded_once(project)
