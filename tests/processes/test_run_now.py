"""Run now: a person asks in the admin of one process, and ``once work`` in another answers."""

import signal

import pytest

from tests.project import Process, Project
from tests.waiting import wait_until

FAILING = """
    @routine(role="worker", startup=False)
    def mend(run):
        if run.attempt > 1:
            hold(f"attempt {run.attempt}")
        raise LookupError("no such currency")
"""
ADMIN = "django.contrib.admin,django.contrib.messages,django.contrib.sessions"
ASK = """
from html import unescape
from django.contrib.auth.models import User
from django.test import Client
from django.utils.html import strip_tags

client = Client()
ada = {"is_staff": True, "is_superuser": True}
client.force_login(User.objects.get_or_create(username="ada", defaults=ada)[0])
asked = {"action": "run", "_selected_action": "default:plant.mend", "post": "yes", "seen": SEEN}
page = client.post("/admin/once/routine/", {**asked, "reason": "mended"}, follow=True)
print(unescape(strip_tags(page.content.decode())))
"""


@pytest.fixture(autouse=True)
def _admin(project: Project) -> None:
    apps = f"{ADMIN},{project.environment['TEST_APPS']}"
    project.environment |= {"TEST_APPS": apps, "ONCE_RETRY_DELAY": "3600"}
    project.routines(FAILING)
    assert project.manage("migrate", "-v0").finish() == 0


def ask(project: Project, seen: str = "failed") -> str:
    """Ask for a run in the admin; what the page says then."""
    process = project.manage("shell", "-v0", "-c", ASK.replace("SEEN", repr(seen)))
    assert process.finish() == 0, process.output
    return process.output


def work(project: Project) -> Process:
    """A worker that has looked, and found nothing that it may try."""
    worker = project.once("work")
    worker.wait_for("Starting servers try again in")
    return worker


def states(project: Project) -> list[str]:
    return [state for *_, state in project.attempts()]


def fail(project: Project) -> None:
    process = project.once("run", "plant.mend")
    assert process.finish() == 1, process.output
    assert states(project) == ["failed"]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb", "sqlite"])
def test_routine_whose_delay_is_long_is_run_now_by_one_of_two_workers(project: Project) -> None:
    fail(project)
    workers = [work(project), work(project)]
    assert "“plant.mend” is to run now" in ask(project)
    project.wait_for("attempt 2")
    wait_until(
        lambda: any("plant.mend is run by" in each.output for each in workers),
        what=lambda: f"{workers[0].output}\n{workers[1].output}",
    )
    project.release("attempt 2")
    for worker in workers:
        worker.wait_for('message="Attempt 2 ')  # both have looked since
    assert states(project) == ["failed"] * 2
    for worker in workers:
        worker.send(signal.SIGTERM)
        assert worker.finish() == 0, worker.output


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_run_now_is_refused_where_no_worker_looks(project: Project) -> None:
    fail(project)
    said = ask(project)
    assert (
        "Left as it is: No `manage.py once work` with the role worker has looked for work" in said
    )
    assert project.rows("SELECT 1 FROM once_wish") == []


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
def test_worker_that_is_killed_has_answered_and_the_delay_holds_again(project: Project) -> None:
    fail(project)
    killed = work(project)
    ask(project)
    project.wait_for("attempt 2")
    killed.kill()
    following = work(project)
    assert states(project) == ["failed", "running"]
    ask(project, seen="pending")
    project.wait_for("attempt 3")
    project.release("attempt 3")
    following.wait_for('message="Attempt 3 ')
    assert states(project) == ["failed", "lost", "failed"]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
def test_worker_that_is_told_to_stop_leaves_the_attempt_to_the_next_one(project: Project) -> None:
    """As any attempt that is interrupted: that is no failure, and has no delay."""
    fail(project)
    stopped = work(project)
    ask(project)
    project.wait_for("attempt 2")
    stopped.send(signal.SIGTERM)
    assert stopped.finish() == 0, stopped.output
    following = project.once("work")
    project.wait_for("attempt 3")
    project.release("attempt 3")
    following.wait_for('message="Attempt 3 ')
    assert states(project) == ["failed", "interrupted", "failed"]
