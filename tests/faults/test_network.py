"""Nodes that are cut off: no packet arrives any more, and nobody is told."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.network import Network
from tests.project import LIVENESS, Process, Project, with_database
from tests.waiting import GRACE

#: One of each kind. The external one asks whether it is still the one.
KINDS = """
    from once.exceptions import GuardLost


    @routine
    def atomic(run):
        effect("atomic")
        hold(f"atomic{run.attempt}")


    @routine(over=lambda: range(1, 5), batch_size=2)
    def batched(items, run):
        for item in items:
            effect(f"batched{item}")
        if 3 in items:
            hold(f"batched{run.attempt}")


    @routine(atomic=False)
    def external(run):
        reach(f"external{run.attempt}")
        while run.attempt == 1:
            time.sleep(0.05)
            try:
                run.check()
            except GuardLost:
                reach("told")
                raise
"""
NAMES = ["atomic", "batched", "external"]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    network = Network()
    yield network
    network.end()


@pytest.fixture
def remote(network: Network, tmp_path: Path) -> Iterator[Project]:
    """A project whose database is the network's server."""
    with psycopg.connect(network.url, autocommit=True) as session:
        session.execute("CREATE DATABASE once_project")
    url = with_database(network.url, "once_project")
    project = Project(tmp_path / "project", url, url)
    migrating = project.manage("migrate", "-v0")
    assert migrating.finish() == 0, migrating.output
    yield project
    network.mend()
    project.close()
    with psycopg.connect(network.url, autocommit=True) as session:
        session.execute("DROP DATABASE once_project WITH (FORCE)")


def on_node(network: Network, project: Project, *arguments: str) -> Process:
    """Start ``manage.py once ...`` on the node."""
    command = network.on_node(sys.executable, "-m", "tests.manage", "once", *arguments)
    return project.start(*command, DATABASE_URL=network.url_from_node(project.url))


def test_holder_on_a_lost_node(network: Network, remote: Project) -> None:
    project = remote
    project.routines(KINDS)
    holders = [on_node(network, project, "run", f"plant.{name}") for name in NAMES]
    for name in NAMES:
        project.wait_for(f"{name}1")
    waiters = [project.once("run", f"plant.{name}") for name in NAMES]
    for waiter in waiters:
        waiter.wait_for("Waiting")
    network.cut()
    for name in NAMES:
        assert project.wait_for(f"{name}2") < LIVENESS + GRACE
    # Who is cut off knows it by itself.
    assert project.wait_for("told") < GRACE
    for name in NAMES[:2]:
        project.release(f"{name}2")
    for waiter in waiters:
        assert waiter.finish() == 0, waiter.output
    for name in NAMES[:2]:
        project.release(f"{name}1")
    network.mend()
    for holder in holders:
        assert holder.finish() == 1, holder.output
        assert "lost its right to commit" in holder.output
    assert project.effects() == ["atomic", *(f"batched{number}" for number in range(1, 5))]
    assert project.completions() == [f"plant.{name}" for name in NAMES]
    assert {(number, state) for _, number, state in project.attempts()} == {
        (1, "lost"),
        (2, "succeeded"),
    }


def test_deadline_of_who_waits_on_a_lost_node(network: Network, remote: Project) -> None:
    project = remote
    project.routines(KINDS)
    holder = project.once("run", "plant.atomic")
    project.wait_for("atomic1")
    commands = (["run", "plant.atomic"], ["wait", "plant.atomic"])
    waiters = [on_node(network, project, *command, "--timeout=5") for command in commands]
    for waiter in waiters:
        waiter.wait_for("Waiting")
    network.cut()
    for waiter in waiters:
        assert waiter.finish(timeout=10) in (3, 4), waiter.output
    project.release("atomic1")
    assert holder.finish() == 0, holder.output
    assert project.effects() == ["atomic"]
