"""Many processes that start together: every body commits once, and all of them succeed."""

import fcntl
import json
from contextlib import ExitStack

import psycopg
import pytest

from tests.project import Process, Project
from tests.waiting import PATIENCE

MANY_ROUTINES = """
    def declare(number):
        @routine(name=f"plant.round{number}")
        def body():
            effect(f"round{number:02}")

    for number in range(10):
        declare(number)
"""


def answers(process: Process) -> list[dict[str, object]]:
    lines = process.output.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def run_rounds(project: Project, processes: int, rounds: int, **environment: str) -> None:
    project.routines(MANY_ROUTINES)
    barriers = [project.directory / f"plant.round{number}" for number in range(rounds)]
    with ExitStack() as stack:
        gates = [stack.enter_context(barrier.open("w")) for barrier in barriers]
        for gate in gates:
            fcntl.flock(gate, fcntl.LOCK_EX)
        workers = [
            project.manage("herd", *map(str, barriers), **environment) for _ in range(processes)
        ]
        for worker in workers:
            worker.wait_for("ready")
        for number, gate in enumerate(gates, 1):
            fcntl.flock(gate, fcntl.LOCK_UN)
            for worker in workers:
                worker.wait_for('"code"', times=number)
    assert [worker.finish() for worker in workers] == [0] * processes
    codes = [answer["code"] for worker in workers for answer in answers(worker)]
    assert codes == [0] * processes * rounds
    assert project.effects() == [f"round{number:02}" for number in range(rounds)]
    assert len(project.completions()) == rounds
    succeeded = [row for row in project.attempts() if row[2] == "succeeded"]
    assert len(succeeded) == rounds


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_forty_processes_ten_rounds(project: Project) -> None:
    run_rounds(project, processes=40, rounds=10)


@pytest.mark.parametrize("kind", ["pgbouncer-2", "pgbouncer-5"])
def test_twenty_processes_behind_a_small_pooler(project: Project) -> None:
    run_rounds(project, processes=20, rounds=5, ONCE_STARTUP_TIMEOUT=f"{PATIENCE:g}")


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize("isolation", ["3", "4"], ids=["repeatable-read", "serializable"])
def test_other_isolation_level_of_the_project(project: Project, isolation: str) -> None:
    run_rounds(project, processes=8, rounds=5, TEST_ISOLATION=isolation)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_serializable_with_pollers_and_a_writer(project: Project) -> None:
    project.routines(
        """
        tries = []

        @routine
        def seed():
            tries.append(Effect.objects.count())
            effect("seed")
            hold(f"body{len(tries)}")
        """
    )
    holder = project.once("run", TEST_ISOLATION="4")
    project.wait_for("body1")
    pollers = [project.once("run", TEST_ISOLATION="4") for _ in range(6)]
    for poller in pollers:
        poller.wait_for("Waiting")
    with psycopg.connect(project.admin_url) as writer:
        # Each of the two reads what the other writes, so PostgreSQL refuses the later COMMIT.
        writer.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        writer.execute("SELECT count(*) FROM shop_effect")
        writer.execute("INSERT INTO shop_effect (name, pid) VALUES ('writer', 0)")
    project.release("body1")
    project.release("body2")
    assert [process.finish() for process in (holder, *pollers)] == [0] * 7
    assert project.reached("body2") == [holder.pid]  # the same attempt, once more
    assert project.effects() == ["seed", "writer"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


@pytest.mark.parametrize("kind", ["pgbouncer-2"])
def test_different_routines_at_once_behind_a_pool_of_two(project: Project) -> None:
    project.routines(MANY_ROUTINES)
    # Each holder may make way for several others, on a loaded machine for longer than 25 s.
    project.environment["ONCE_STARTUP_TIMEOUT"] = f"{PATIENCE:g}"
    names = [f"plant.round{number}" for number in range(6)]
    processes = [project.once("run", name) for name in names for _ in range(2)]
    assert [process.finish() for process in processes] == [0] * 12
    assert project.effects() == [f"round{number:02}" for number in range(6)]
