"""Start-up with real servers: who runs what is pending, when, and what happens where it cannot."""

import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.exceptions import ImproperlyConfigured

from once import startup
from tests.processes.http import Server
from tests.project import APPS, Project
from tests.servers import PgBouncer, database_url, free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(databases=[])

Serve = Callable[..., Server]

#: ``memory`` leaves a line for each time that it ran, with the process that ran it.
ROUTINES = """
    @routine
    def seed():
        effect("seed")

    @routine
    async def fetch():
        await Effect.objects.acreate(name="fetch")

    @routine(scope="process")
    def memory():
        with open(os.environ["HANDSHAKE"] + "/memory", "a") as lines:
            lines.write(f"{os.getpid()}\\n")
"""
HOLDING = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""
FAILING = """
    @routine
    def seed():
        effect("seed")
        if not os.path.exists(os.environ["HANDSHAKE"] + "/mended.go"):
            raise ValueError("no such brand")
"""
DONE = [("plant.fetch", 1, "succeeded"), ("plant.seed", 1, "succeeded")]
STRICT = {"PYTHONWARNINGS": "error::RuntimeWarning,always:This process:DeprecationWarning"}


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.fixture
def serve(project: Project) -> Iterator[Serve]:
    """Starts servers of the project and ends them with the test."""
    servers: list[Server] = []

    def start(kind: str, *options: str, **environment: str) -> Server:
        servers.append(Server(project, kind, *options, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


class Pooler:
    """A PgBouncer on a port of its own, by which a database can be out of reach."""

    def __init__(self, directory: Path, project: Project) -> None:
        self._directory = directory
        self._port = free_port()
        self._running: PgBouncer | None = None
        self._starts = 0
        name = project.url.rpartition("/")[2].partition("?")[0]
        self.environment = {
            "DATABASE_URL": f"postgresql://postgres:any@127.0.0.1:{self._port}/{name}",
            "ONCE_STARTUP_TIMEOUT": "0.5",
        }

    def start(self) -> None:
        self._starts += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.servers.free_port", lambda: self._port)
            directory = self._directory / f"pooler-{self._starts}"
            self._running = PgBouncer(directory, database_url(), 5)

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None


@pytest.fixture
def pooler(project: Project, tmp_path: Path) -> Iterator[Pooler]:
    pooler = Pooler(tmp_path, project)
    yield pooler
    pooler.stop()


def _apps(order: str) -> str:
    others = [app for app in APPS if app != "once"]
    position = {"first": 0, "middle": 2, "last": len(others)}[order]
    return ",".join([*others[:position], "once", *others[position:]])


def _memory(project: Project) -> list[int]:
    """The processes in which ``memory`` ran, once for each time."""
    path = project.directory / "handshake" / "memory"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def _workers(server: Server) -> list[int]:
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", server.output)]


def _sessions(project: Project) -> int:
    """How many sessions the database has, besides the one that asks."""
    return int(
        project.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )[0][0]
    )


# What runs where


@pytest.mark.parametrize(
    ("server", "order", "processes", "kind"),
    [
        ("uvicorn", "first", 1, "postgresql"),
        ("uvicorn", "middle", 1, "postgresql"),
        ("uvicorn", "last", 1, "postgresql"),
        ("uvicorn-workers", "first", 2, "postgresql"),
        ("uvicorn-workers", "last", 2, "sqlite"),
        ("gunicorn", "middle", 2, "sqlite"),
        ("preload", "middle", 1, "postgresql"),
        ("runserver", "middle", 2, "postgresql"),  # the reloader sets Django up as well
        ("runserver-noreload", "last", 1, "postgresql"),
    ],
)
def test_server_runs_routines_once_without_a_warning(
    project: Project, serve: Serve, server: str, order: str, processes: int
) -> None:
    project.routines(ROUTINES)
    started = serve(server, TEST_APPS=_apps(order), **STRICT)
    started.wait_for(200)
    wait_until(lambda: len(_memory(project)) >= processes, what=lambda: started.output)
    started.stop()
    assert project.effects() == ["fetch", "seed"]
    assert project.attempts() == DONE
    assert len(set(_memory(project))) == len(_memory(project)) == processes
    assert "Warning" not in started.output


@pytest.mark.parametrize("order", ["first", "middle", "last"])
def test_two_gunicorns_with_three_workers_each_run_routines_once(
    project: Project, serve: Serve, order: str
) -> None:
    project.routines(ROUTINES)
    servers = [
        serve("gunicorn", "--workers", "3", TEST_APPS=_apps(order), **STRICT) for _ in range(2)
    ]
    for server in servers:
        server.wait_for(200)
    wait_until(lambda: len(_memory(project)) >= 6, what=lambda: servers[0].output)
    assert [server.stop() for server in servers] == [0, 0]
    assert project.effects() == ["fetch", "seed"]
    assert project.attempts() == DONE
    assert _memory(project) == sorted(_workers(servers[0]) + _workers(servers[1]))
    assert not any("Warning" in server.output for server in servers)


@pytest.mark.parametrize(
    ("server", "processes"),
    [("gunicorn", 2), ("preload", 1), ("uvicorn", 1), ("runserver", 2)],
)
def test_off_leaves_in_memory_routines_alone_to_run(
    project: Project, serve: Serve, server: str, processes: int
) -> None:
    project.routines(ROUTINES)
    started = serve(server, ONCE_STARTUP="off")
    started.wait_for(503)
    wait_until(lambda: len(_memory(project)) >= processes, what=lambda: started.output)
    started.stop()
    assert len(set(_memory(project))) == len(_memory(project)) == processes
    assert project.attempts() == []
    assert project.effects() == []


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn", "uvicorn-workers"])
def test_async_in_memory_routine_runs_in_every_kind_of_server(
    project: Project, serve: Serve, server: str
) -> None:
    project.routines("""
        @routine(scope="process")
        async def memory():
            reach("memory")
    """)
    serve(server).wait_for(200)
    assert project.reached("memory")


TESTS = """
    from django.test import SimpleTestCase, TestCase
    from tests.shop.models import Effect

    class Offline(SimpleTestCase):
        def test_nothing(self):
            pass
"""
TESTS_WITH_A_DATABASE = """
    class Online(TestCase):
        def test_nothing_ran(self):
            self.assertFalse(Effect.objects.exists())
"""
SETUP = ("-c", "import django; django.setup()")
COMMANDS = [
    ("tests.manage", "check"),
    ("tests.manage", "collectstatic", "--noinput"),
    ("tests.manage", "makemigrations", "--check", "--dry-run"),
    ("tests.manage", "test", "--noinput", "plant"),
    ("tests.manage", "test", "--noinput", "tests.model"),  # where Django finds no tests
]


def _command(project: Project, *arguments: str, **environment: str) -> tuple[int, str]:
    if arguments[0] != "-c":
        arguments = ("-m", *arguments)
    process = project.start(
        sys.executable,
        *arguments,
        TEST_APPS="django.contrib.staticfiles," + _apps("middle"),
        TEST_STATIC=str(project.directory / "static"),
        **environment,
    )
    return process.finish(), process.output


@pytest.mark.parametrize(
    "arguments",
    [
        *COMMANDS[:-1],
        ("tests.manage", "migrate"),
        ("tests.manage", "shell", "-c", "print(1)"),
        SETUP,
    ],
    ids=" ".join,
)
def test_command_runs_no_routine(project: Project, arguments: tuple[str, ...]) -> None:
    project.routines(ROUTINES)
    tests = textwrap.dedent(TESTS) + textwrap.dedent(TESTS_WITH_A_DATABASE)
    (project.directory / "plant" / "tests.py").write_text(tests)
    code, output = _command(project, *arguments, **STRICT)
    assert code == 0, output
    assert "event=" not in output
    assert project.attempts() == []
    assert project.effects() == []
    assert len(_memory(project)) == 1  # of process scope, in every process that sets Django up


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("arguments", [*COMMANDS, SETUP], ids=" ".join)
def test_command_works_without_a_database(project: Project, arguments: tuple[str, ...]) -> None:
    project.routines(ROUTINES)
    (project.directory / "plant" / "tests.py").write_text(textwrap.dedent(TESTS))
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    # makemigrations itself warns that it cannot see the database.
    strict = {} if "makemigrations" in arguments else STRICT
    code, output = _command(project, *arguments, DATABASE_URL=nowhere, **strict)
    assert code == (_no_tests() if "tests.model" in arguments else 0), output
    assert "event=" not in output
