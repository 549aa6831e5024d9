"""Fixtures: real databases, and projects whose processes use them."""

import fcntl
import importlib.util
import itertools
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver
from django.test import TransactionTestCase

if importlib.util.find_spec("once.migrations") is None:
    raise pytest.UsageError("django-once is not installed. Run: pip install -e .[lint]")

from once import Routine, conf, log
from once.routines import registry
from tests.databases import create_database, drop_database
from tests.project import Project, with_database
from tests.servers import MariaDB, PgBouncer, database_url, query_mysql

# A background job may have been started with SIGINT ignored, which its children would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Tables whose rows ``migrate`` made, and which no test changes.
_KEPT = {"django_content_type", "auth_permission", "django_migrations"}
#: Databases that any thread of this process connected to since their tables were emptied.
_used: set[str] = set()


@receiver(connection_created)
def _note_use(connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    _used.add(connection.settings_dict["NAME"])


def _empty_tables(test: TransactionTestCase) -> None:
    """Delete all rows, which is faster by far than Django's TRUNCATE and ``post_migrate``.

    A server that the test did not connect to stays as it is.
    """
    for alias in test._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
        here = connections[alias]
        if here.connection is None and here.settings_dict["NAME"] not in _used:
            continue
        with (
            here.constraint_checks_disabled(),
            transaction.atomic(using=alias),
            here.cursor() as cursor,
        ):
            tables = {*here.introspection.django_table_names(only_existing=True)} - _KEPT
            deletes = [f"DELETE FROM {here.ops.quote_name(name)}" for name in sorted(tables)]
            # PostgreSQL's driver alone sends several statements at once without being told to.
            for sql in ["; ".join(deletes)] if here.vendor == "postgresql" else deletes:
                cursor.execute(sql)
        _used.discard(here.settings_dict["NAME"])


TransactionTestCase._fixture_teardown = _empty_tables  # type: ignore[attr-defined]

#: What this process calls its databases: tests may run in several processes on one server.
_PREFIX = f"once_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
_count = itertools.count(1)


#: Directories of the quick part, which `pytest` runs alone. All others are slow.
_QUICK = {"unit", "contract", "behaviour"}
_TESTS = Path(__file__).parent


def _is_slow(path: Path) -> bool:
    """True if a path is, or lies in, a slow directory."""
    top, *_ = path.relative_to(_TESTS).parts or [""]
    return (_TESTS / top).is_dir() and top not in {"", *_QUICK}


def _names_paths(config: pytest.Config) -> bool:
    return bool(config.args != config.getini("testpaths"))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have the servers that these tests start run routines: each project has its own databases."""
    os.environ.pop(conf.TESTS, None)
    if _names_paths(config) and config.option.markexpr == "not slow":
        config.option.markexpr = ""  # what is named runs


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run named tests in this process, others two a core, because half of the time they wait."""
    return 0 if _names_paths(config) else 2 * (os.cpu_count() or 1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow files unread where none of their tests runs."""
    return (config.option.markexpr == "not slow" and _is_slow(collection_path)) or None


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark slow tests. Begin with those that run alone, while no other runs; then long ones."""
    for item in items:
        if _is_slow(item.path):
            item.add_marker("slow")
    if connection.vendor != "postgresql":
        others = [item for item in items if item.get_closest_marker("postgresql")]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    items.sort(
        key=lambda item: [item.get_closest_marker(name) is None for name in ("alone", "long")]
    )


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[Routine]:
    """Every declared routine: none, until the test declares some."""
    monkeypatch.setattr(registry, "site", registry.Site())
    return registry.site.declared


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, declared: list[Routine]) -> None:
    """No routine but the test's own, and no setting from the environment."""
    for name in conf.NAMES:
        monkeypatch.delenv(name, raising=False)


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
    create_database(f"{_PREFIX}_migrated")
    for url in urls.values():
        project = Project(directory / url.partition(":")[0], url, url)
        process = project.manage("migrate", "-v0")
        assert process.finish() == 0, process.output
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


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the log tell everything once more, whatever another test had it tell."""
    monkeypatch.setattr(log, "_told", {})
    monkeypatch.setattr(log, "_told_at", {})


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
        create_database(name, f"{_PREFIX}_migrated" if is_migrated else "template1")
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
        drop_database(name)


@pytest.fixture
def second_url(migrated: dict[str, str]) -> Iterator[str]:
    """The URL of a migrated database of its own, beside that of the project."""
    name = f"{_PREFIX}_second_{next(_count)}"
    create_database(name, f"{_PREFIX}_migrated")
    yield with_database(database_url(), name)
    drop_database(name)
