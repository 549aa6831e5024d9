"""A project takes django-once out again, as docs/how-to/upgrading.md says."""

import pytest

from tests.processes.migrations import GATE, write, write_gate
from tests.project import APPS, Process, Project

pytestmark = [
    pytest.mark.django_db(databases=[]),
    pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"]),
]

IMPORT, OPERATION = (
    "from once.operations import RunRoutine\n",
    '        RunRoutine("plant.fill"),\n',
)
CONTENT_TYPES = "SELECT model FROM django_content_type WHERE app_label = 'once'"
APPLIED = [("plant", "0001_item"), ("plant", "0002_slug")]


@pytest.fixture
def is_migrated() -> bool:
    return False


@pytest.fixture
def used(project: Project) -> Project:
    """A project with a routine, and a migration that needs it; both are done."""
    write_gate(project)
    (project.directory / "plant" / "urls.py").write_text("urlpatterns = []\n")
    project.settings("ROOT_URLCONF = 'plant.urls'\n")
    succeed(project.once("run", "--migrate"))
    return project


def succeed(process: Process) -> str:
    assert process.finish() == 0, process.output
    return process.output


def applied(project: Project) -> list[tuple[str, str]]:
    sql = "SELECT app, name FROM django_migrations WHERE app IN ('once', 'plant') ORDER BY id"
    return [*project.rows(sql)]


def without_app(project: Project) -> None:
    project.environment["TEST_APPS"] = ",".join(app for app in APPS if app != "once")


def test_project_goes_on_without(used: Project) -> None:
    write(used, "0002_slug", GATE.replace(IMPORT, "").replace(OPERATION, ""))
    (used.directory / "plant" / "routines.py").unlink()
    succeed(used.manage("migrate", "--check"))
    succeed(used.manage("migrate", "once", "zero"))
    succeed(used.server(ONCE_STARTUP_TIMEOUT="0"))
    assert applied(used) == APPLIED
    without_app(used)
    succeed(used.manage("check"))
    succeed(used.manage("migrate", "--check"))
    stale = ["remove_stale_contenttypes", "--include-stale-apps", "--noinput"]
    assert used.rows(CONTENT_TYPES) != []
    succeed(used.manage(*stale))
    assert used.rows(CONTENT_TYPES) == []
    succeed(used.manage("migrate", "plant", "zero"))
    succeed(used.manage("migrate"))
    assert applied(used) == APPLIED


def test_tables_that_are_gone_leave_applied_migrations_alone_and_come_back_empty(
    used: Project,
) -> None:
    succeed(used.manage("migrate", "once", "zero"))
    assert applied(used) == APPLIED
    succeed(used.manage("migrate"))
    assert applied(used) == [*APPLIED, ("once", "0001_initial")]
    assert used.status()["plant.fill"]["state"] == "pending"


def test_operation_that_is_left_in_a_migration_needs_the_app(used: Project) -> None:
    without_app(used)
    migrate = used.manage("migrate")
    assert migrate.finish() == 1
    assert "once.models.Completion doesn't declare an explicit app_label" in migrate.output
