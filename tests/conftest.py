"""Fixtures: real databases, and projects whose processes use them."""

import fcntl
import importlib.util
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

if importlib.util.find_spec("once.migrations") is None:
    raise pytest.UsageError("django-once is not installed. Run: pip install -e .[test]")

from tests.project import ROOT, Project, with_database
from tests.servers import MariaDB, PgBouncer, database_url, query_mysql

# A background job may have been started with SIGINT ignored, which its children would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: What this process calls its databases: tests may run in several processes on one server.
_PREFIX = f"once_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
_count = itertools.count(1)


def pytest_report_header() -> list[str]:
    import django

    url = database_url()
    if url.startswith("mysql"):
        [(server,)] = query_mysql(url, "SELECT VERSION()")
    else:
        with psycopg.connect(url, autocommit=True) as session:
            server = f"PostgreSQL {session.info.server_version / 10000:.4g}"
    return [
        f"Django {django.__version__}, {server}, psycopg {psycopg.__version__}, "
        f"SQLite {sqlite3.sqlite_version}"
    ]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing is skipped: what cannot run there fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that run beside no other come first: nobody has begun what they would wait for."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is None)


@pytest.fixture(autouse=True)
def _room(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Where tests run in several processes, those marked ``alone`` run beside no other."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    directory = tmp_path_factory.getbasetemp().parent
    is_alone = request.node.get_closest_marker("alone") is not None
    with (directory / "door").open("w") as door, (directory / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)  # whoever waits for an empty room keeps others out
        fcntl.flock(room, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        if not is_alone:
            fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """URLs of migrated databases to copy, by kind."""
    directory = tmp_path_factory.mktemp("migrated")
    urls = {
        "postgresql": with_database(database_url(), f"{_PREFIX}_migrated"),
        "sqlite": f"sqlite:///{directory}/migrated.sqlite3",
    }
    _create_database(f"{_PREFIX}_migrated")
    for url in urls.values():
        project = Project(directory / url.partition(":")[0], url, url)
        subprocess.run(
            [sys.executable, "-m", "tests.manage", "migrate", "-v0"],
            cwd=ROOT,
            env=project.environment,
            check=True,
        )
    return urls


@pytest.fixture(scope="session")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, PgBouncer]]:
    """PgBouncers by their pool size."""
    started: dict[int, PgBouncer] = {}

    class Pools(dict[int, PgBouncer]):
        def __missing__(self, size: int) -> PgBouncer:
            directory = tmp_path_factory.getbasetemp() / f"pgbouncer-{size}"
            started[size] = self[size] = PgBouncer(directory, database_url(), size)
            return self[size]

    yield Pools()
    for pool in started.values():
        pool.stop()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A MariaDB, started where a test first asks for it, with a migrated database to copy."""
    directory = tmp_path_factory.mktemp("mariadb")
    server = MariaDB(directory / "server")
    server.query("CREATE DATABASE once_migrated")
    project = Project(directory / "project", *[server.url("once_migrated")] * 2)
    process = project.manage("migrate", "-v0")
    assert process.finish() == 0, process.output
    project.close()
    yield server
    server.stop()


@pytest.fixture(params=["postgresql", "pgbouncer", "mariadb", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    """What a project's database is, or is behind."""
    kind: str = request.param
    return kind


@pytest.fixture
def is_migrated() -> bool:
    """Whether the project's database begins migrated; override it to begin with nothing."""
    return True


@pytest.fixture
def project(
    kind: str,
    is_migrated: bool,
    migrated: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Project]:
    """A project on a database of its own."""
    (tmp_path / "project").mkdir()
    if kind == "sqlite":
        if is_migrated:
            shutil.copy(migrated["sqlite"].removeprefix("sqlite:///"), tmp_path / "db.sqlite3")
        admin_url = url = f"sqlite:///{tmp_path}/db.sqlite3"
    elif kind == "mariadb":
        server: MariaDB = request.getfixturevalue("mariadb")
        name = f"once_project_{next(_count)}"
        if is_migrated:
            server.copy_database("once_migrated", name)
        else:
            server.query(f"CREATE DATABASE {name}")
        admin_url = url = server.url(name)
    else:
        name = f"{_PREFIX}_{next(_count)}"
        _create_database(name, f"{_PREFIX}_migrated" if is_migrated else "template1")
        admin_url = url = with_database(database_url(), name)
        if kind.startswith("pgbouncer"):
            size = int(kind.partition("-")[2] or 5)
            url = request.getfixturevalue("pools")[size].url(name)
    project = Project(tmp_path / "project", url, admin_url)
    yield project
    project.close()
    if kind == "mariadb":
        server.query(f"DROP DATABASE {name}")
    elif kind != "sqlite":
        _drop_database(name)


@pytest.fixture
def second_url(migrated: dict[str, str]) -> Iterator[str]:
    """The URL of a migrated database of its own, beside that of the project."""
    name = f"{_PREFIX}_second_{next(_count)}"
    _create_database(name, f"{_PREFIX}_migrated")
    yield with_database(database_url(), name)
    _drop_database(name)


def _create_database(name: str, template: str = "template1") -> None:
    _drop_database(name)
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE {template}")


def _drop_database(name: str) -> None:
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
