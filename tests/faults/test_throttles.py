"""Throttles beside real replicas: one that stands still, one that leaves, and one of MariaDB."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.pair import Pair
from tests.faults.support import Server
from tests.project import Process, Project, with_database
from tests.servers import MariaDB
from tests.waiting import wait_until

#: Item after item; the tenth holds, and the first attempt goes on when the test says so.
FILL = """
    from once.throttles import replica_lag, wal_archiving


    @routine(over=lambda: range(100), batch_size=1, rest=0.02, throttle={throttle})
    def fill(items):
        effect(f"{{items[0]:04}}")
        if items[0] == 10:
            hold("tenth")
"""
ALL = [f"{item:04}" for item in range(100)]
WAITS = "Waits: {} says 1 s"
LAG = "replica_lag(seconds=1)"
ALIAS = "replica_lag(seconds=1, replica='replica')"


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.end()


@pytest.fixture
def project(pair: Pair, tmp_path: Path) -> Iterator[Project]:
    """A project on the primary, whose role is no superuser, with its standby as a replica."""
    with psycopg.connect(pair.url, autocommit=True) as session:
        session.execute("CREATE ROLE app LOGIN")
        session.execute("CREATE DATABASE once_project OWNER app")
    admin_url = with_database(pair.url, "once_project")
    url = admin_url.replace("//postgres", "//app")
    project = Project(tmp_path / "project", url, admin_url)
    _, _, host = pair.standby_url.partition("host=")
    project.settings(f"DATABASES['replica'] = {{**default, 'HOST': {host!r}}}\n")
    migrating = project.manage("migrate", "-v0")
    assert migrating.finish() == 0, migrating.output
    yield project
    project.close()


def holding(project: Project, throttle: str) -> Process:
    """A process at the tenth item."""
    project.routines(FILL.format(throttle=f"[{throttle}]" if throttle else "[]"))
    process = project.once("run")
    project.wait_for("tenth")
    return process


def count(project: Project) -> int:
    [(found,)] = project.rows("SELECT count(*) FROM shop_effect")
    return int(found)


def see_it_wait(project: Project, process: Process, throttle: str) -> None:
    """See that no batch follows while it waits, and that everybody is told why."""
    process.wait_for(WAITS.format(throttle))
    done = count(project)
    asked = process.output.count("event=throttled")
    shown = project.status()["plant.fill"]
    assert (shown["state"], shown["throttled"]) == ("running", f"{throttle} says 1 s")
    status = project.once("status")
    assert status.finish() == 0, status.output
    assert f"waits: {throttle} says 1 s" in status.output
    assert count(project) == done
    assert asked == 1  # and no line with every second


@pytest.mark.parametrize("throttle", [LAG, ALIAS])
def test_lag_stays_under_the_bound_behind_a_replica_that_stands_still(
    pair: Pair, project: Project, throttle: str
) -> None:
    if throttle == LAG:
        project.execute("GRANT pg_read_all_stats TO app")
    process = holding(project, throttle)
    pair.pause_replay()
    project.release("tenth")
    see_it_wait(project, process, throttle)
    # A second's worth of batches, each with 20 ms of rest, and the one in hand.
    assert 11 <= count(project) <= 11 + 50 + 2
    pair.resume_replay()
    assert process.finish() == 0, process.output
    assert project.effects() == ALL
    assert project.status()["plant.fill"]["throttled"] is None


def test_without_a_throttle_the_lag_grows(pair: Pair, project: Project) -> None:
    process = holding(project, "")
    pair.pause_replay()
    project.release("tenth")
    assert process.finish() == 0, process.output
    standby = with_database(pair.standby_url, "once_project")
    assert pair.ask(standby, "SELECT count(*) FROM shop_effect") < [(30,)]
    pair.resume_replay()


@pytest.mark.parametrize("throttle", [LAG, ALIAS])
def test_replica_that_leaves_is_waited_for(pair: Pair, project: Project, throttle: str) -> None:
    if throttle == LAG:
        project.execute("GRANT pg_read_all_stats TO app")
    process = holding(project, throttle)
    pair.stop_standby()
    project.release("tenth")
    see_it_wait(project, process, throttle)
    assert count(project) <= 12
    pair.start_standby()
    assert process.finish() == 0, process.output
    assert project.effects() == ALL


def test_role_that_may_not_see_replicas_is_told_the_grant(project: Project) -> None:
    project.routines(FILL.format(throttle=f"[{LAG}]"))
    process = project.once("run")
    assert process.finish() == 1
    assert f"The throttle {LAG} failed. Database 'default' does not tell app" in process.output
    assert "how far replicas are behind: GRANT pg_read_all_stats TO app." in process.output
    assert project.effects() == []


def test_files_of_wal_that_nothing_archives_are_waited_for(
    server: Server, own_project: Project
) -> None:
    for setting in ("archive_mode = on", "archive_command = 'false'"):
        server.execute(f"ALTER SYSTEM SET {setting}")
    server.restart()
    try:
        process = holding(own_project, "wal_archiving(files=2)")
        for _ in range(2):
            own_project.execute("CREATE TABLE IF NOT EXISTS plant_switched ()")
            own_project.execute("INSERT INTO plant_switched DEFAULT VALUES")
            own_project.execute("SELECT pg_switch_wal()")
        own_project.release("tenth")
        see_it_wait(own_project, process, "wal_archiving(files=2)")
        server.execute("ALTER SYSTEM SET archive_command = 'true'")
        server.execute("SELECT pg_reload_conf()")
        assert process.finish() == 0, process.output
    finally:
        for setting in ("archive_mode", "archive_command"):
            server.execute(f"ALTER SYSTEM RESET {setting}")
        server.restart()


@pytest.fixture
def mariadbs(tmp_path: Path) -> Iterator[tuple[MariaDB, MariaDB]]:
    """A primary and its replica."""
    primary, replica = MariaDB(tmp_path / "primary"), MariaDB(tmp_path / "replica")
    for number, each in enumerate((primary, replica), 1):
        each.kill()
        each.start(f"--server-id={number}", "--log-bin=binlog")
    [(file, place, *_)] = primary.query("SHOW MASTER STATUS")
    replica.query(
        f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port}, "
        f"MASTER_USER='root', MASTER_LOG_FILE='{file}', MASTER_LOG_POS={place}; START SLAVE"
    )
    yield primary, replica
    primary.stop()
    replica.stop()


def test_replica_of_mariadb(mariadbs: tuple[MariaDB, MariaDB], tmp_path: Path) -> None:
    primary, replica = mariadbs
    primary.query("CREATE DATABASE once_project CHARACTER SET utf8mb4")
    url = primary.url("once_project")
    project = Project(tmp_path / "project", url, url)
    project.settings(f"DATABASES['replica'] = {{**default, 'PORT': {replica.port}}}\n")
    try:
        assert project.manage("migrate", "-v0").finish() == 0
        shown = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'shop_effect'"
        wait_until(lambda: replica.query(shown) == [(1,)], what="the replica")
        process = holding(project, ALIAS)
        replica.query("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 3600; START SLAVE")
        project.release("tenth")
        see_it_wait(project, process, ALIAS)
        replica.query("STOP SLAVE SQL_THREAD")  # a moment later it knows nothing of its lag
        done = count(project)
        replica.query("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 0; START SLAVE")
        assert process.finish() == 0, process.output
        assert done < len(ALL)
        assert project.effects() == ALL
        project.execute("CREATE USER app; GRANT ALL ON once_project.* TO app")
        replica.query("STOP SLAVE SQL_THREAD")
        again = project.once("run", "plant.again")
        assert again.finish() == 2  # no such routine
        project.routines(FILL.format(throttle=f"[{ALIAS}]").replace("def fill", "def again"))
        again = project.once("run")
        assert again.finish() == 1
        assert "Replication to database 'replica' is stopped: no error" in again.output
    finally:
        project.close()
