"""Nodes that are cut off: no packet arrives any more, and nobody is told."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.network import Network, Translator
from tests.project import LIVENESS, Process, Project, with_database
from tests.waiting import GRACE, wait_until

#: One of each kind. The external one asks whether it is still the one.
KINDS = """
    from once.exceptions import LockLost


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
            except LockLost:
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
    return manage(network, project, "once", *arguments)


def manage(place: Network | Translator, project: Project, *arguments: str) -> Process:
    command = place.on_node(sys.executable, "-m", "tests.manage", *arguments)
    return project.start(*command, DATABASE_URL=place.url_from_node(project.url))


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
        assert holder.finish() == 0, holder.output
        assert "lost its right to commit" in holder.output
        assert "pool" not in holder.output
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
        assert waiter.finish(timeout=5 + 2 * GRACE) in (3, 4), waiter.output
        assert "pool" not in waiter.output
    project.release("atomic1")
    assert holder.finish() == 0, holder.output
    assert project.effects() == ["atomic"]


#: Bodies that end after the cut, and one that waits for an answer which the cut keeps from it.
CUT_OFF = """
    @routine
    def ends():
        effect("ends")
        hold("ends")


    @routine
    def asks():
        reach("asks")
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(3600)")
"""


def test_holder_behind_a_cut_link_ends_soon_after_its_body(
    network: Network, remote: Project
) -> None:
    project = remote
    project.routines(CUT_OFF)
    project.environment["ONCE_STARTUP_TIMEOUT"] = "1"
    holders = [on_node(network, project, "run", f"plant.{name}") for name in ("ends", "asks")]
    project.wait_for("ends")
    project.wait_for("asks")
    network.cut()
    project.release("ends")
    began = time.monotonic()
    for holder in holders:
        assert holder.finish(timeout=120) in (1, 4), holder.output
    # Its connection is given up after the liveness timeout, and then the database, in its time.
    assert time.monotonic() - began < 3 * LIVENESS + 2 * GRACE
    assert project.effects() == []


#: A body that is silent on its connection, beside a connection without keepalives.
SILENT = """
    import psycopg


    @routine
    def silent():
        effect("silent")
        other = psycopg.connect(os.environ["DATABASE_URL"], keepalives=0)
        for session in (connection.connection, other):
            [port] = session.execute("SELECT inet_client_port()").fetchone()
            print("port", port, flush=True)
        hold("silent")
        other.close()
"""
#: Runs it on a connection that is open, and leaves its socket as it was.
FOUND_OPEN = """
import os, psycopg, socket
from django.core.management import call_command
from django.db import connection

def options():
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as line:
        names = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT]
        return [line.getsockopt(socket.IPPROTO_TCP, name) for name in names]

connection.ensure_connection()
before = options()
{}
call_command("once", "run", "plant.silent")
assert options() == before
"""
DIE = """
with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
    other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid])
"""
RUNS = {
    "new": ["once", "run", "plant.silent"],
    "found": ["shell", "-c", FOUND_OPEN.format("")],
    "reopened": ["shell", "-c", FOUND_OPEN.format(DIE)],
}


@pytest.fixture
def translator(network: Network) -> Iterator[Translator]:
    translator = Translator(network, 3 * round(LIVENESS))
    yield translator
    translator.end()


@pytest.mark.parametrize("command", RUNS.values(), ids=RUNS)
def test_body_that_is_silent_for_longer_than_an_address_translator_remembers_commits(
    translator: Translator, remote: Project, command: list[str]
) -> None:
    project = remote
    project.routines(SILENT)
    process = manage(translator, project, *command)
    project.wait_for("silent")
    work, other = (int(port) for port in re.findall(r"port (\d+)", process.output))
    assert work in translator.flows()
    wait_until(lambda: other not in translator.flows(), what="the translator to forget")
    assert work in translator.flows()
    project.release("silent")
    assert process.finish() == 0, process.output
    assert project.effects() == ["silent"]
    assert project.attempts() == [("plant.silent", 1, "succeeded")]
