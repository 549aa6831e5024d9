"""The claim between real processes: one starts, the others wait, whatever dies half-way."""

import re
import signal
import time

import pytest

from tests.project import Project
from tests.waiting import GRACE, wait_until

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
        assert project.named(holder) in waiter.output
    project.release("body")
    assert [process.finish() for process in (holder, *waiters)] == [0, 0, 0, 0]
    assert project.effects() == ["seed"]
    assert project.completions() == ["plant.seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


def test_killed_holder_is_succeeded_at_once(project: Project) -> None:
    project.environment["ONCE_LIVENESS_TIMEOUT"] = "30"  # it is not evicted: it is gone
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 5)  # so long a wait is what is tested
    holder.kill()
    assert project.wait_for("body", processes=2) < GRACE
    project.release("body")
    assert waiter.finish() == 0
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_rolls_back_and_says_so(project: Project, number: signal.Signals, code: int) -> None:
    project.routines(SEED)
    process = project.once("run")
    project.wait_for("body")
    process.send(number)
    assert process.finish() == code, process.output
    assert project.effects() == []
    assert project.attempts() == [("plant.seed", 1, "interrupted")]
    project.release("body")
    assert project.once("run").finish() == 0
    assert project.attempts()[1:] == [("plant.seed", 2, "succeeded")]


def test_deadline_names_the_holder(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    waiter = project.once("run", "--timeout", "2")
    assert waiter.finish() == 4
    assert re.search(r"Gave up after [\d.]+ s", waiter.output)
    assert project.named(holder) in waiter.output.splitlines()[-1]
    assert "once status" in waiter.output.splitlines()[-1]
    assert project.once("run", "--no-wait").finish() == 3
    running = project.status()["plant.seed"]
    assert (running["state"], running["pid"]) == ("running", holder.pid)
    assert project.once("status", "--check").finish() == 3
    late = project.once("wait")
    late.wait_for(f"pid {holder.pid}")
    project.release("body")
    assert [holder.finish(), late.finish()] == [0, 0]
    assert project.status()["plant.seed"]["state"] == "completed"
