"""Heavy work leaves the web process: a server without a role, a worker, and readiness."""

import signal

import pytest

from tests.processes.conftest import Pooler
from tests.processes.http import Serve
from tests.project import Process, Project
from tests.waiting import wait_until

ROUTINES = """
    @routine(role="worker")
    def heavy():
        effect("heavy")
        hold("heavy")

    @routine(after=[heavy])
    def light():
        effect("light")

    @routine(role="worker", startup=False)
    def backfill():
        effect("backfill")
"""

BATCHED = """
    @routine(over=lambda: range(6), batch_size=2, role="worker", startup=False)
    def fill(batch):
        effect(f"batch {batch[0]}")
        if 2 in batch:
            hold("second")
"""


@pytest.fixture(params=["postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def pids(project: Project, routine: str) -> set[int]:
    return {
        pid for (pid,) in project.rows(f"SELECT pid FROM once_attempt WHERE routine = '{routine}'")
    }


def stop(worker: Process) -> None:
    worker.send(signal.SIGTERM)
    assert worker.finish() == 0, worker.output
    assert 'event=work_ended message="Ended by SIGTERM."' in worker.output


def test_web_server_leaves_the_work_to_a_worker_and_is_ready_then(
    project: Project, serve: Serve
) -> None:
    project.routines(ROUTINES)
    server = serve("gunicorn")
    server.wait_for(503)
    server.process.wait_for("event=startup_incomplete", times=2)
    assert project.attempts() == []
    worker = project.once("work")
    project.wait_for("heavy")
    assert server.get() == 503
    project.release("heavy")
    server.wait_for(200)
    server.process.wait_for("event=startup_complete", times=2)
    assert pids(project, "plant.heavy") == {worker.pid}
    wait_until(lambda: len(project.effects()) == 3, what=lambda: worker.output)
    assert pids(project, "plant.backfill") == {worker.pid}
    stop(worker)
    told = 'event=startup_incomplete by=gunicorn message="plant.heavy: Left to processes'
    assert server.output.count(told) == 2
    assert "event=startup_retried" not in server.output


def test_celery_is_the_worker_unless_told_otherwise(project: Project, serve: Serve) -> None:
    project.routines(ROUTINES)
    project.release("heavy")
    command = "celery -A tests.tasks worker -c 1 --loglevel INFO"
    other = serve(command, ONCE_ROLE="")
    other.process.wait_for("event=startup_incomplete")
    assert project.attempts() == []
    celery = serve(command)
    celery.process.wait_for("event=startup_complete")
    assert pids(project, "plant.heavy") == {celery.pid}
    wait_until(lambda: len(project.effects()) == 2, what=lambda: other.output)
    assert "plant.backfill" not in project.completions()


def test_worker_that_is_stopped_ends_its_batch_and_the_next_one_goes_on(project: Project) -> None:
    project.routines(BATCHED)
    worker = project.once("work")
    project.wait_for("second")
    worker.send(signal.SIGTERM)
    worker.wait_for("Ending: first the batch in hand")
    project.release("second")
    assert worker.finish() == 0, worker.output
    assert project.attempts() == [("plant.fill", 1, "interrupted")]
    assert project.effects() == ["batch 0", "batch 2"]
    following = project.once("work")
    wait_until(lambda: project.completions() == ["plant.fill"], what=lambda: following.output)
    stop(following)
    assert project.effects() == ["batch 0", "batch 2", "batch 4"]


def test_worker_that_is_stopped_begins_no_further_body(project: Project) -> None:
    project.routines(
        """
        @routine(atomic=False, retry=False)
        def first():
            hold("first")

        @routine(atomic=False, retry=False)
        def second():
            effect("second")

        @routine
        def third():
            effect("third")
        """
    )
    worker = project.once("work")
    project.wait_for("first")
    worker.send(signal.SIGTERM)
    worker.wait_for("Ending: first the batch in hand")
    project.release("first")
    assert worker.finish() == 0, worker.output
    assert project.attempts() == [("plant.first", 1, "succeeded")]
    assert project.effects() == []


def test_worker_takes_over_from_one_that_died(project: Project) -> None:
    project.routines(BATCHED)
    first = project.once("work")
    project.wait_for("second")
    second = project.once("work")
    second.wait_for("event=work_left routine=plant.fill")
    first.kill()
    project.release("second")
    wait_until(lambda: project.completions() == ["plant.fill"], what=lambda: second.output)
    assert project.attempts() == [("plant.fill", 1, "lost"), ("plant.fill", 2, "succeeded")]
    stop(second)


@pytest.mark.parametrize("is_migrated", [False])
def test_worker_outlives_a_database_without_tables(project: Project) -> None:
    project.routines(BATCHED)
    project.release("second")
    worker = project.once("work")
    worker.wait_for("event=work_left routine=plant.fill")
    assert project.manage("migrate", "-v0").finish() == 0
    wait_until(lambda: project.completions() == ["plant.fill"], what=lambda: worker.output)
    stop(worker)


def test_worker_outlives_a_database_that_is_away(project: Project, pooler: Pooler) -> None:
    project.routines(BATCHED)
    project.release("second")
    worker = project.once("work", **pooler.environment)
    worker.wait_for("event=work_hindered reason=")
    pooler.start()
    wait_until(lambda: project.completions() == ["plant.fill"], what=lambda: worker.output)
    stop(worker)
    assert worker.output.count("event=work_hindered") == 1
