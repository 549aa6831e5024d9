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


@pytest.mark.parametrize(
    "step",
    ["once.ledger:begin=step", "once.work:Work.do=step", "once.ledger:complete=after:step"],
    ids=["before-the-claim", "before-the-work", "before-the-commit"],
)
def test_killed_at_a_step(project: Project, step: str) -> None:
    project.routines(SEED)
    project.release("body")
    holder = project.once("run", TEST_HOLD=step)
    project.wait_for("step")
    holder.kill()
    assert project.effects() == []
    successor = project.once("run")
    assert successor.finish() == 0, successor.output
    assert project.effects() == ["seed"]
    assert [state for *_, state in project.attempts()][-1] == "succeeded"


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
