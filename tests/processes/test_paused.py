"""Pause, resume and set from another process, while a holder runs, rests or is killed."""

import random
import signal

import pytest

from tests.processes.test_batched import (
    assert_each_once,
    batches,
    counters,
    counting,
    fill,
    latest,
    states,
    wait_until_latest,
)
from tests.project import Process, Project
from tests.waiting import wait_until

KINDS = pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb", "sqlite"])


def want(project: Project, *arguments: str) -> str:
    process = project.once(*arguments)
    assert process.finish() == 0, process.output
    return process.output


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_pause_stops_the_holder_after_its_batch_until_it_is_resumed(project: Project) -> None:
    fill(project, 30)
    project.routines(counting(hold_at=11))
    holder = project.once("run")
    project.wait_for("batch")
    assert "it stops on" in want(project, "pause", "plant.count", "--reason", "peak hours")
    assert project.status()["plant.count"]["state"] == "running"
    project.release("batch")
    assert holder.finish() == 5, holder.output
    assert "INTERRUPTED" in holder.output
    assert "(peak hours). `manage.py once resume plant.count`" in holder.output
    assert latest(project) == (1, 20)
    assert states(project) == ["interrupted"]
    assert project.status()["plant.count"]["state"] == "paused"
    other = project.once("run")
    assert other.finish() == 5, other.output
    assert states(project) == ["interrupted"]
    want(project, "resume", "plant.count")
    last = project.once("run")
    assert last.finish() == 0, last.output
    assert_each_once(project, 30)


@KINDS
def test_holder_that_rests_is_paused_and_set(project: Project) -> None:
    fill(project, 30)
    project.routines(counting(rest=3_600))
    holder = project.once("run")
    wait_until_latest(project, 1, 10)
    want(project, "set", "plant.count", "rest=", "batch_size=20")
    assert holder.is_running()
    want(project, "set", "plant.count", "rest=0")
    assert holder.finish() == 0, holder.output
    assert project.effects() == ["000001-000010", "000011-000030"]
    assert counters(project) == [(1, 30)]


@pytest.mark.parametrize("kind", ["sqlite"])
def test_holder_that_never_rests_lets_another_writer_in(project: Project) -> None:
    """SQLite's writers do not queue, and each may look again too late for ever."""
    fill(project, 400)
    project.routines(counting().replace("effect(", "time.sleep(0.3)\n            effect("))
    holder = project.once("run")
    wait_until_latest(project, 1, 10)
    want(project, "pause", "plant.count")
    assert holder.finish() == 5, holder.output
    assert latest(project) < (1, 400)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_waiter_ends_with_the_holder_that_is_paused(project: Project) -> None:
    fill(project, 30)
    project.routines(counting(hold_at=11))
    holder = project.once("run")
    project.wait_for("batch")
    waiters = [project.once("run"), project.once("wait")]
    waiters[0].wait_for("Waiting")
    want(project, "pause", "plant.count")
    project.release("batch")
    for process in (holder, *waiters):
        assert process.finish() == 5, process.output
    assert states(project) == ["interrupted"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_server_starts_without_what_is_paused_and_runs_it_once_resumed(project: Project) -> None:
    fill(project, 30)
    project.routines(counting())
    want(project, "pause", "plant.count")
    server = project.server("from tests.shop.handshake import hold; hold('serving')")
    project.wait_for("serving")
    assert "event=startup_incomplete" in server.output
    assert "Paused by" in server.output
    assert states(project) == []
    want(project, "resume", "plant.count")
    wait_until(lambda: project.completions() == ["plant.count"])
    server.kill()
    assert_each_once(project, 30)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
@pytest.mark.parametrize("when", ["step", "after:step"], ids=["before", "after"])
def test_killed_beside_a_look_at_what_is_wanted(project: Project, when: str) -> None:
    fill(project, 30)
    project.routines(counting())
    holder = project.once("run", TEST_HOLD=f"once.engine.pacing:Pacing.heed={when}")
    project.wait_for("step")
    want(project, "pause", "plant.count")
    holder.kill()
    other = project.once("run")
    assert other.finish() == 5, other.output
    want(project, "resume", "plant.count")
    last = project.once("run")
    assert last.finish() == 0, last.output
    assert_each_once(project, 30)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_frozen_holder_that_thaws_after_a_pause_and_its_end(project: Project) -> None:
    """A successor goes on meanwhile: what the pause was about is none of the zombie's."""
    fill(project, 30)
    project.routines(counting(hold_at=11))
    holder = project.once("run")
    project.wait_for("batch")
    holder.send(signal.SIGSTOP)
    want(project, "pause", "plant.count")
    want(project, "resume", "plant.count")
    project.release("batch")
    successor = project.once("run")
    assert successor.finish() == 0, successor.output
    holder.send(signal.SIGCONT)
    assert holder.finish() == 0, holder.output
    assert project.effects() == batches(30)
    assert counters(project) == [(1, 30)]


class Commands:
    """Random wishes from other processes, and a holder that heeds them, or is killed."""

    def __init__(self, project: Project, rows: int, size: int) -> None:
        fill(project, rows)
        project.routines(counting(batch_size=size, rest=0.02))
        self._project = project
        seed = random.randrange(2**32)
        print(f"seed {seed}")  # pytest shows it where the test fails
        self._random = random.Random(seed)
        self._holder: Process | None = None
        self.kills = 0

    @property
    def is_done(self) -> bool:
        return self._project.completions() == ["plant.count"]

    def attend(self) -> None:
        """Have a process run the routine, as long as it is to be run."""
        if self._holder is not None and not self._holder.is_running():
            assert self._holder.finish() in (0, 5), self._holder.output
            self._holder = None
        if self._holder is None:
            self._holder = self._project.once("run")

    def kill(self) -> None:
        self.attend()
        assert self._holder is not None
        self._holder.kill()
        self._holder = None
        self.kills += 1

    def want_something(self) -> None:
        self.attend()
        what = self._random.choice(["pause", "resume", "set", "set"])
        if what == "set":
            values = [f"batch_size={self._random.choice([20, 50, 100])}", "rest=0.02"]
            want(self._project, "set", "plant.count", *values)
            return
        holder = self._holder
        assert holder is not None
        sql = f"SELECT 1 FROM once_attempt WHERE state = 'running' AND pid = {holder.pid}"
        want(self._project, what, "plant.count")
        if what == "pause":
            # Else it is at work, or killed, and is so until a successor comes.
            wait_until(lambda: not (holder.is_running() and self._project.rows(sql)))

    def end(self) -> None:
        want(self._project, "set", "plant.count", "batch_size=500", "rest=0")
        want(self._project, "resume", "plant.count")
        if self._holder is not None:
            self._holder.finish()
        last = self._project.once("run")
        assert last.finish() == 0, last.output


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "rows", "commands", "kills"),
    [("postgresql", 10_000, 20, 4), ("mariadb", 6_000, 10, 3)],
)
def test_random_commands_and_kills(project: Project, rows: int, commands: int, kills: int) -> None:
    people = Commands(project, rows, 50)
    for number in range(commands):
        people.want_something()
        if number % (commands // kills) == 0 and not people.is_done:
            people.kill()
    people.end()
    assert counters(project) == [(1, rows)]
    assert project.completions() == ["plant.count"]
    done = sum(int(last) - int(first) + 1 for first, last in map(_span, project.effects()))
    assert done == rows


def _span(effect: str) -> tuple[str, str]:
    first, _, last = effect.partition("-")
    return first, last
