"""Faults of processes on SQLite, where the operating system frees the guard with its process."""

import signal

import pytest

from tests.project import Project
from tests.shop.calls import calls

pytestmark = pytest.mark.parametrize("kind", ["sqlite"])

SEED = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""


def test_frozen_holder_is_waited_for_and_then_completes(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    holder.send(signal.SIGSTOP)
    impatient = project.once("run", "--timeout", "3")  # longer than the liveness timeout
    assert impatient.finish() == 4
    assert f"pid {holder.pid}" in impatient.output
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    holder.send(signal.SIGCONT)
    project.release("body")
    assert [holder.finish(), waiter.finish()] == [0, 0]
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


def test_readers_are_not_locked_out_of_a_long_routine(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    assert project.status()["plant.seed"]["state"] == "running"
    project.release("body")
    assert holder.finish() == 0


def test_frozen_holder_outside_of_a_transaction_lets_others_write(project: Project) -> None:
    project.routines(
        """
        from tests.shop.calls import note


        @routine(atomic=False, retry=False)
        def announce(run):
            note("announce", run)
            hold("body")
        """
    )
    holder = project.once("run")
    project.wait_for("body")
    holder.send(signal.SIGSTOP)
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    project.execute("INSERT INTO shop_effect (name, pid) VALUES ('by another', 0)")
    assert project.status()["plant.announce"]["state"] == "running"
    project.release("body")
    holder.send(signal.SIGCONT)
    assert [holder.finish(), waiter.finish()] == [0, 0]
    assert project.effects() == ["by another"]
    assert len(calls(project.directory, "announce")) == 1
    assert project.attempts() == [("plant.announce", 1, "succeeded")]
