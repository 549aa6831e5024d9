"""The claim between real processes: one starts, the others wait, whatever dies half-way."""

import signal

import pytest

from tests.project import Project
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(databases=[])

SEED = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""


def test_waiters_succeed_after_the_holder_did(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    waiters = [project.once("run") for _ in range(3)]
    for waiter in waiters:
        waiter.wait_for("Waiting")
        assert f"pid {holder.pid}" in waiter.output
    project.release("body")
    assert [process.finish() for process in (holder, *waiters)] == [0, 0, 0, 0]
    assert project.effects() == ["seed"]
    assert project.completions() == ["plant.seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


def test_killed_holder_is_succeeded_within_a_second(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    waiter = project.once("run")
    wait_until(lambda: "Waiting for 5" in waiter.output or _waited(waiter.output) >= 4, timeout=30)
    holder.kill()
    assert project.wait_for("body", processes=2) < 1.0
    project.release("body")
    assert waiter.finish() == 0
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
def test_frozen_holder_is_succeeded_and_commits_nothing(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    holder.send(signal.SIGSTOP)
    assert project.wait_for("body", processes=2) < 2 + 1  # the liveness timeout and a second
    project.release("body")
    assert waiter.finish() == 0
    holder.send(signal.SIGCONT)
    assert holder.finish() == 1
    assert "lost its right to commit" in holder.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


def _waited(output: str) -> float:
    words = [line.split()[2] for line in output.splitlines() if "Waiting for" in line]
    return float(words[-1].rstrip("s:")) if words else 0.0
