"""What a process loads: imports are most of what a start with nothing to do costs."""

import sys
from textwrap import dedent

import pytest

from once.management.commands.once import SUBCOMMANDS
from tests.project import Process, Project

pytestmark = pytest.mark.django_db(databases=[])

#: What no process needs before there is something to run.
RUNNING = {
    "django.db.migrations.executor",
    "once.routines.batches",
    "once.engine.body",
    "once.engine.claim",
    "once.record.recorder",
    "once.migrating.migrate",
    "once.databases.unapplied",
    "once.engine.verdict",
    "once.engine.attempt",
    "tqdm",
}
#: What none needs that serves nobody.
SERVING = {
    "filelock",
    "once.databases",
    "once.databases.lock",
    "once.management",
    "once.record.history",
    "once.results",
    "once.engine.executor",
    "once.startup.serve",
    "once.text",
    "once.engine.backoff",
}
ROUTINES = """
    @routine
    def seed():
        effect("seed")

    @routine(scope="process")
    def memory():
        pass
"""


@pytest.fixture(params=["postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


ADMIN = "django.contrib.admin,django.contrib.messages,django.contrib.sessions"


SHOW = "import sys; print(*sys.modules)"


def loaded(process: Process) -> set[str]:
    """The modules of a process that shows them."""
    assert process.finish() == 0, process.output
    return set(process.output.splitlines()[-1].split())


def set_up(project: Project, **environment: str) -> Process:
    code = f"import django; django.setup(); {SHOW}"
    return project.start(sys.executable, "-c", code, **environment)


def test_process_that_serves_nobody_loads_what_declares_routines(project: Project) -> None:
    project.routines(ROUTINES)
    modules = loaded(set_up(project))
    assert modules >= {"once.models", "once.routines.registry", "plant.routines"}
    assert modules & (RUNNING | SERVING | {"once.admin"}) == set()


def test_process_that_has_the_admin_loads_no_page_of_it(project: Project) -> None:
    project.routines(ROUTINES)
    apps = f"{ADMIN},{project.environment['TEST_APPS']}"
    modules = loaded(set_up(project, TEST_APPS=apps))
    assert modules >= {"once.admin", "plant.routines"}
    assert (
        modules
        & (RUNNING | SERVING | {"once.admin.pages", "once.admin.rows", "once.status.survey"})
        == set()
    )


def served(project: Project) -> Process:
    """A server that no other process has loaded modules for."""
    command = (sys.executable, "-m", "tests.manage", "shell", "-v0", "-c", SHOW)
    return project.start(*command, ONCE_STARTUP_COMMANDS="shell")


def test_server_that_finds_everything_done_loads_what_reads_the_record(project: Project) -> None:
    project.routines(ROUTINES)
    assert loaded(served(project)) >= {
        "once.engine.claim",
        "once.engine.attempt",
    }  # it runs what is pending
    assert project.effects() == ["seed"]
    modules = loaded(served(project))
    assert modules >= {"once.record.history", "once.engine.executor"}
    assert modules & RUNNING == set()


def test_command_that_finds_everything_done_loads_no_other_subcommand(project: Project) -> None:
    project.routines(ROUTINES)
    project.manage("once", "run")
    code = f"""
        from django.core.management import execute_from_command_line
        execute_from_command_line(["manage.py", "once", "run"])
        {SHOW}
    """
    modules = loaded(project.start(sys.executable, "-c", dedent(code)))
    commands = {f"once.cli.{name}" for name in SUBCOMMANDS}
    assert modules & commands == {"once.cli.run"}
    assert modules & (RUNNING | {"once.status.survey", "once.status.reading"}) == set()
