"""A standby that is promoted: with synchronous commit exactly once, without it nothing by half."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.balancer import moved
from tests.faults.pair import Pair
from tests.faults.support import RESTING, ROWS, changes
from tests.project import Project, with_database

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
