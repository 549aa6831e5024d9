"""Drivers that stand for a supported one: refused at once, where a run or a server begins."""

import importlib.util

import pytest

from tests.processes.http import Serve
from tests.project import Project
from tests.servers import missing

pytestmark = pytest.mark.django_db(databases=[])

PYMYSQL = """
import pymysql
pymysql.version_info = (2, 2, 8, "final", 0)  # as projects do, because Django asks for it
pymysql.install_as_MySQLdb()
"""
REFUSED = "Database 'default': the driver pymysql is in use; mysqlclient is needed. Install it:"
SEED = """
    @routine
    def seed():
        effect("seed")
"""
ELSEWHERE = """
    @routine(using="sqlite")
    def seed(run):
        Effect.objects.using(run.using).create(name="seed")
"""


@pytest.fixture
def kind() -> str:
    return "mariadb"


@pytest.fixture(autouse=True)
def _installed(project: Project) -> None:
    if importlib.util.find_spec("pymysql") is None:
        missing("pymysql")
    project.settings(PYMYSQL)


@pytest.mark.parametrize("command", ["run", "status", "wait", "doctor"])
def test_command_that_checks_nothing_refuses_pymysql(project: Project, command: str) -> None:
    project.routines(SEED)
    process = project.once(command, "--skip-checks")
    assert process.finish() == (1 if command == "doctor" else 2), process.output
    output = " ".join(process.output.split())  # the doctor folds its lines
    assert REFUSED.partition(": ")[2] in output
    assert "remove pymysql.install_as_MySQLdb()" in output
    assert "Traceback" not in output
    assert project.attempts() == []


@pytest.mark.parametrize("server", ["gunicorn", "preload", "uvicorn"])
def test_server_that_starts_refuses_pymysql(project: Project, serve: Serve, server: str) -> None:
    """It runs no system checks."""
    project.routines(SEED)
    started = serve(server)
    assert started.process.finish() != 0
    assert f"ImproperlyConfigured: {REFUSED}" in started.output, started.output
    assert "another exception" not in started.output.partition("HaltServer")[0]
    assert project.attempts() == []


def test_pymysql_is_left_alone_where_no_routine_is(project: Project) -> None:
    project.routines(ELSEWHERE)
    for command in ("run --migrate", "wait", "status --check", "doctor"):
        process = project.once(*command.split())
        assert process.finish() == 0, process.output
        assert "Traceback" not in process.output
    assert project.attempts() == []
