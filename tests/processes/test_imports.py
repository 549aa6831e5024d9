"""What a process loads: imports are most of what a start with nothing to do costs."""

import sys

import pytest

from tests.project import Project

pytestmark = pytest.mark.django_db(databases=[])

#: What no process needs before there is something to run.
RUNNING = {
    "django.db.migrations.executor",
    "once.batches",
    "once.body",
    "once.claim",
    "once.ledger",
    "once.migrate",
    "once.report",
    "once.work",
    "tqdm",
}
#: What none needs that serves nobody.
SERVING = {
    "filelock",
    "once.databases",
    "once.guards",
    "once.management",
    "once.record",
    "once.results",
    "once.run",
    "once.runner",
    "once.serving",
    "once.text",
    "once.waiting",
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


def loaded(project: Project, setup: str, **environment: str) -> set[str]:
    """The modules of a process that set Django up."""
    code = f"{setup}; import sys; print(*sys.modules)"
    process = project.start(sys.executable, "-c", code, **environment)
    assert process.finish() == 0, process.output
    return set(process.output.splitlines()[-1].split())


def test_process_that_serves_nobody_loads_what_declares_routines(project: Project) -> None:
    project.routines(ROUTINES)
    modules = loaded(project, "import django; django.setup()")
    assert modules >= {"once.models", "once.registry", "plant.routines"}
    assert modules & (RUNNING | SERVING | {"once.admin"}) == set()


def test_process_that_has_the_admin_loads_no_page_of_it(project: Project) -> None:
    project.routines(ROUTINES)
    apps = f"{ADMIN},{project.environment['TEST_APPS']}"
    modules = loaded(project, "import django; django.setup()", TEST_APPS=apps)
    assert modules >= {"once.admin", "plant.routines"}
    assert modules & (RUNNING | SERVING | {"once.admin.shown", "once.status"}) == set()


def test_server_that_finds_everything_done_loads_what_reads_the_record(project: Project) -> None:
    project.routines(ROUTINES)
    setup = "from django.core.wsgi import get_wsgi_application; get_wsgi_application()"
    assert loaded(project, setup) >= {"once.claim", "once.work"}  # it runs what is pending
    assert project.effects() == ["seed"]
    modules = loaded(project, setup)
    assert modules >= {"once.record", "once.runner"}
    assert modules & RUNNING == set()
