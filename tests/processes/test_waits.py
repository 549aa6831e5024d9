"""What a process logs while it waits: one warning for each reason, however often it looks."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.processes.conftest import Pooler
from tests.processes.http import Serve
from tests.processes.test_startup import HOLDING, ROUTINES
from tests.project import Process, Project

pytestmark = pytest.mark.django_db(databases=[])

#: Each line says its process and level.
LEVELS = """
LOGGING["formatters"] = {"level": {"format": "%(process)d %(levelname)s %(message)s"}}
LOGGING["handlers"]["stderr"]["formatter"] = "level"
LOGGING["loggers"]["once"]["level"] = "DEBUG"
"""

#: A context in which the database cannot be used, with the environment of a project's processes.
Trouble = Callable[[Project, Pooler], AbstractContextManager[dict[str, str]]]


@pytest.fixture
def kind() -> str:
    return "postgresql"


@contextmanager
def _read_only(project: Project, pooler: Pooler) -> Iterator[dict[str, str]]:
    """As while a primary fails over."""
    name = urlsplit(project.url).path.strip("/")
    own = "-c default_transaction_read_only=off"
    with psycopg.connect(project.url, autocommit=True, options=own) as other:
        other.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        yield {}
        other.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')


@contextmanager
def _unreachable(project: Project, pooler: Pooler) -> Iterator[dict[str, str]]:
    yield pooler.environment
    pooler.start()


def _warnings(process: Process) -> dict[str, list[str]]:
    """What each process warned of, without numbers of seconds."""
    found: dict[str, list[str]] = {}
    for pid, line in re.findall(r"^(\d+) WARNING (event=.+)$", process.output, re.MULTILINE):
        found.setdefault(pid, []).append(re.sub(r"seconds=\S+|\d+(\.\d+)? s\b", "", line))
    return found


@pytest.mark.parametrize("trouble", [_read_only, _unreachable])
def test_run_warns_once_of_a_database_that_cannot_be_used(
    project: Project, pooler: Pooler, trouble: Trouble
) -> None:
    project.settings(LEVELS)
    project.routines(ROUTINES)
    with trouble(project, pooler) as environment:
        runner = project.once("run", **{**environment, "ONCE_STARTUP_TIMEOUT": "600"})
        runner.wait_for(" DEBUG event=waiting", 3)  # it looks at least four times
    assert runner.finish() == 0, runner.output
    [[line]] = _warnings(runner).values()
    assert "event=waiting" in line
    assert "database 'default' cannot be used" in line
    assert project.effects() == ["fetch", "seed"]


@pytest.mark.parametrize("trouble", [_read_only, _unreachable])
def test_server_warns_once_of_a_database_that_cannot_be_used_and_is_ready_after_it(
    project: Project, serve: Serve, pooler: Pooler, trouble: Trouble
) -> None:
    """Also where it waits again and again beside the server, and where workers find each other."""
    project.settings(LEVELS)
    project.routines(ROUTINES)
    with trouble(project, pooler) as environment:
        server = serve("gunicorn", **{**environment, "ONCE_STARTUP_TIMEOUT": "2"})
        server.process.wait_for("event=startup_incomplete", 2)  # of each worker
        server.process.wait_for("event=startup_retried", 4)
        server.wait_for(503)
        assert "event=finished" not in server.output
        for lines in _warnings(server.process).values():
            assert len(lines) == len(set(lines)), server.output
            assert "event=startup_incomplete" in "\n".join(lines)
            assert "cannot be used" in "\n".join(lines)
    server.wait_for(200)
    assert project.effects() == ["fetch", "seed"]


def test_run_warns_once_of_another_process_and_once_of_its_end(project: Project) -> None:
    project.settings(LEVELS)
    project.routines(HOLDING)
    holder = project.once("run")
    project.wait_for("body")
    waiter = project.once("run")
    waiter.wait_for(" WARNING event=waiting")
    waiter.wait_for(" DEBUG event=waiting", 2)
    project.release("body")
    assert holder.finish() == waiter.finish() == 0
    assert [line.split()[0] for line in _warnings(waiter)[str(waiter.pid)]] == [
        "event=waiting",
        "event=waited",
    ]
    assert _warnings(holder) == {}
