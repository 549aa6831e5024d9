"""Items that fail, while a process dies or freezes at each step of what is recorded of them."""

import signal

import pytest

from tests.processes.test_batched import counters, fill, states
from tests.project import Process, Project

#: Steps of recording that an item failed, and of trying it again, in their order.
RECORDING = {
    "known": "once.engine.batching:_Passage._record=step",
    "recorded": "once.record.failed_items:add=after:step",
    "behind": "once.record.recorder:advance=after:step",
    "committed": "once.engine.batching:_Passage._record=after:step",
}
TRYING = {
    "listed": "once.record.failed_items:names=after:step",
    "called": "once.routines.base:Routine.call=after:step",
    "removed": "once.record.failed_items:remove=after:step",
    "committed": "once.engine.batching:_Passage._transact=after:step",
    "ending": "once.record.recorder:succeed=step",
    "ended": "once.record.recorder:succeed=after:step",
}
#: Steps after which nothing of the first process is lost.
LASTING = {"committed", "ending", "ended"}


def counting(*bad: int) -> str:
    """A routine that adds one to every row, and raises for bad ones."""
    return f"""
        from django.db.models import F
        from tests.shop.models import Counted


        @routine(over=Counted.objects.all, batch_size=2, max_errors=3)
        def count(rows):
            rows.update(counter=F("counter") + 1)
            for row in rows:
                effect(f"row {{row.pk}}")
                if row.pk in {bad}:
                    raise ValueError(f"bad row {{row.pk}}")
    """


def failed(project: Project) -> list[str]:
    return [item for (item,) in project.rows("SELECT item FROM once_faileditem ORDER BY item")]


def finish(process: Process, code: int = 0) -> None:
    assert process.finish() == code, process.output


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb", "sqlite"])
@pytest.mark.parametrize("step", RECORDING)
def test_killed_while_an_item_is_recorded_as_failed(project: Project, step: str) -> None:
    fill(project, 5)
    project.routines(counting(1, 5))
    first = project.once("run", TEST_HOLD=RECORDING[step])
    project.wait_for("step")
    first.kill()
    assert failed(project) == (["1"] if step in LASTING else [])
    finish(project.once("run"))
    assert failed(project) == ["1", "5"]
    assert counters(project) == [(0, 2), (1, 3)]
    assert project.effects() == ["row 2", "row 3", "row 4"]
    assert states(project) == ["lost", "succeeded"]
    processed = project.rows("SELECT max(processed) FROM once_attempt")
    assert processed == [(5,)]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb", "sqlite"])
@pytest.mark.parametrize("step", TRYING)
def test_killed_while_failed_items_are_tried(project: Project, step: str) -> None:
    fill(project, 5)
    project.routines(counting(1, 5))
    finish(project.once("run"))
    project.routines(counting())
    trying = ("run", "--failed-items", "plant.count")
    first = project.once(*trying, TEST_HOLD=TRYING[step])
    project.wait_for("step")
    first.kill()
    left = {"committed": ["5"], "ending": [], "ended": []}.get(step, ["1", "5"])
    assert failed(project) == left
    finish(project.once(*trying))
    assert failed(project) == []
    assert counters(project) == [(1, 5)]
    assert project.effects() == [f"row {number}" for number in range(1, 6)]
    # Where nothing is left to try, no process takes over from the one that died.
    assert states(project) == ["succeeded", *(["lost", "succeeded"] if left else ["running"])]
    finish(project.once("status", "--check"))


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
@pytest.mark.parametrize("step", ["recorded", "removed"])
def test_frozen_beside_its_successor(project: Project, step: str) -> None:
    fill(project, 5)
    project.routines(counting(1, 5))
    command = ["run"]
    if step == "removed":
        finish(project.once("run"))
        project.routines(counting())
        command += ["--failed-items", "plant.count"]
    first = project.once(*command, TEST_HOLD=(RECORDING | TRYING)[step])
    project.wait_for("step")
    first.send(signal.SIGSTOP)
    finish(project.once(*command))
    project.release("step")
    first.send(signal.SIGCONT)
    finish(first)
    assert failed(project) == (["1", "5"] if step == "recorded" else [])
    assert counters(project) == ([(0, 2), (1, 3)] if step == "recorded" else [(1, 5)])
    assert states(project)[-2:] == ["lost", "succeeded"]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_signal_ends_after_the_item_in_hand(project: Project) -> None:
    fill(project, 5)
    project.routines(counting(1, 5))
    finish(project.once("run"))
    project.routines(counting())
    trying = ("run", "--failed-items", "plant.count")
    first = project.once(*trying, TEST_HOLD=TRYING["called"])
    project.wait_for("step")
    first.send(signal.SIGTERM)
    first.wait_for("A second signal ends at once.")
    project.release("step")
    finish(first, 143)
    assert failed(project) == ["5"]
    finish(project.once(*trying))
    assert counters(project) == [(1, 5)]
    assert states(project) == ["succeeded", "interrupted", "succeeded"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_processes_that_try_at_once_try_each_item_once(project: Project) -> None:
    fill(project, 5)
    project.routines(counting(1, 3, 5))
    finish(project.once("run"))
    project.routines(counting())
    for process in [project.once("run", "--failed-items", "plant.count") for _ in range(4)]:
        finish(process)
    assert counters(project) == [(1, 5)]
    assert failed(project) == []
