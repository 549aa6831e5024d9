"""Set-ups of Django's databases: what runs once on a plain PostgreSQL does on each of them."""

import importlib.util
import json
import re
import signal
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest

from tests.processes.http import Serve, Server
from tests.project import Project
from tests.servers import missing
from tests.waiting import wait_until

ROUTINES = """
    from tests.shop.models import Counted

    @routine
    def seed():
        effect("seed")

    @routine
    async def fetch():
        await Effect.objects.acreate(name="fetch")

    @routine(atomic=False)
    def announce(run):
        effect("announce")

    @routine(over=Counted.objects.all, batch_size=2)
    def count(rows):
        for row in rows:
            row.counter += 1
            row.save()

    @routine(startup=False)
    def later():
        effect("later")
        time.sleep(0.1)
"""
STARTUP = ["plant.seed", "plant.fetch", "plant.announce", "plant.count"]
AT_START = ["announce", "fetch", "seed"]
#: Pages that run routines, and that show what a session of the server is left with.
PAGES = """
from django.core.management import CommandError, call_command
from django.db import connection
from django.http import JsonResponse
from django.urls import include, path


def run(request):
    try:
        call_command("once", "run", "plant.later", verbosity=0)
    except CommandError as error:
        return JsonResponse({"error": str(error)}, status=500)
    return JsonResponse({})


def session(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE source = 'session'")
        return JsonResponse(dict(cursor.fetchall()))


urlpatterns = [path("", include("tests.urls")), path("run/", run), path("session/", session)]
"""


@pytest.fixture
def kind() -> str:
    return "postgresql"


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        missing(package)


def page(server: Server, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


CONNECTIONS = {
    "pool": "options['pool'] = True",
    "pool of one": "options['pool'] = {'min_size': 1, 'max_size': 1}",
    "pool of two": "options['pool'] = {'min_size': 0, 'max_size': 2}",
    "CONN_MAX_AGE": "default['CONN_MAX_AGE'] = None",
    "CONN_HEALTH_CHECKS": "default.update(CONN_MAX_AGE=600, CONN_HEALTH_CHECKS=True)",
    "DISABLE_SERVER_SIDE_CURSORS": "default['DISABLE_SERVER_SIDE_CURSORS'] = True",
    "server_side_binding": "options['server_side_binding'] = True",
    "prepare_threshold": "options.update(server_side_binding=True, prepare_threshold=0)",
    "options": "options['options'] = '-c statement_timeout=5s -c search_path=public'",
    "isolation_level": "options['isolation_level'] = 4",
    "ATOMIC_REQUESTS": "default['ATOMIC_REQUESTS'] = True",
    "USE_TZ": "USE_TZ = False\nTIME_ZONE = 'Pacific/Kiritimati'",
    "prometheus": "default['ENGINE'] = 'django_prometheus.db.backends.postgresql'",
}
#: Those that are tried behind a pooler as well.
POOLED = ("pool of two", "CONN_MAX_AGE")
#: What the installation of a set-up needs.
NEEDS = {"pool": "psycopg_pool", "prometheus": "django_prometheus"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(pytest.param("postgresql", name, id=name) for name in CONNECTIONS),
        *(pytest.param("pgbouncer-5", name, id=f"pgbouncer {name}") for name in POOLED),
    ],
)
def test_setup(project: Project, serve: Serve, kind: str, name: str) -> None:
    if package := NEEDS.get(name.split()[0]):
        needs(package)
    (project.directory / "plant" / "pages.py").write_text(PAGES)
    project.settings(f"{CONNECTIONS[name]}\nROOT_URLCONF = 'plant.pages'\n")
    project.routines(ROUTINES)
    project.execute("INSERT INTO shop_counted (counter) SELECT 0 FROM generate_series(1, 5)")
    server = serve("gunicorn", "--threads", "3")
    commands = [project.once("run", *STARTUP) for _ in range(2)]
    assert [one.finish() for one in commands] == [0, 0], "\n".join(c.output for c in commands)
    server.wait_for(200)
    assert project.effects() == AT_START
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda _: page(server, "/run/"), range(6)))
        left = list(clients.map(lambda _: page(server, "/session/")[1], range(6)))
    if name == "ATOMIC_REQUESTS":
        assert {status for status, _ in answers} == {500}
        assert "inside a transaction of database 'default'" in answers[0][1]["error"]
        assert project.effects() == AT_START
    else:
        assert answers == [(200, {})] * 6, server.output
        assert project.effects() == sorted([*AT_START, "later"])
    assert {number for _, number, _ in project.attempts()} == {1}
    assert project.rows("SELECT counter FROM shop_counted") == [(1,)] * 5
    if kind == "postgresql":  # a pooler sets what it keeps for its clients
        assert all(set(one) <= {"TimeZone"} for one in left), left
    assert not server.process.output.count("Traceback"), server.output
    # A worker may still begin, or end a session.
    wait_until(lambda: _open(project) == [], what=lambda: f"nothing, not {_open(project)}")


def _open(project: Project) -> list[tuple[Any, ...]]:
    """What sessions hold or are in the middle of."""
    return project.rows(
        "SELECT state, query, locktype FROM pg_stat_activity LEFT JOIN pg_locks USING (pid) "
        "WHERE datname = current_database() AND backend_type = 'client backend' "
        "AND pid <> pg_backend_pid() AND (state <> 'idle' OR locktype IS NOT NULL)"
    )


# Connections


@pytest.mark.parametrize("settings", ["default['CONN_MAX_AGE'] = None", CONNECTIONS["pool of one"]])
def test_open_connection_that_died_before_the_run(project: Project, settings: str) -> None:
    project.settings(settings)
    project.routines(ROUTINES)
    script = """
        import os, psycopg, django
        django.setup()
        from django.core.management import call_command
        from django.db import connection
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pid = cursor.fetchone()[0]
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        call_command("once", "run")
        connection.close()
        connection.close_pool()
    """
    process = project.start(sys.executable, "-c", textwrap.dedent(script))
    assert process.finish() == 0, process.output
    assert project.effects() == sorted([*AT_START, "later"])


SERVICE = """
import os
from pathlib import Path
directory = Path(__file__).parent
(directory / "services").write_text(
    f"[shop]\\ndbname={default['NAME']}\\nuser={default['USER']}\\n"
    f"host={default['HOST'] or options['host']}\\nport={default['PORT'] or 5432}\\n"
)
(directory / "passwords").write_text("*:*:*:*:" + default["PASSWORD"])
(directory / "passwords").chmod(0o600)
os.environ["PGSERVICEFILE"] = str(directory / "services")
default = {
    "ENGINE": default["ENGINE"],
    "OPTIONS": {"service": "shop", "passfile": str(directory / "passwords")},
}
DATABASES["default"] = default
"""


def test_service_file(project: Project) -> None:
    project.settings(SERVICE)
    project.routines(ROUTINES)
    commands = [project.once("run") for _ in range(2)]
    assert [one.finish() for one in commands] == [0, 0], commands[0].output
    assert project.effects() == sorted([*AT_START, "later"])


@pytest.fixture
def roles(project: Project) -> Iterator[tuple[str, str]]:
    """A role that logs in, and one that may use the tables, named for the database."""
    name = urlsplit(project.admin_url).path.removeprefix("/")
    login, owner = f"{name}_login", f"{name}_owner"
    project.execute(f"CREATE ROLE {owner} NOLOGIN")
    project.execute(f"CREATE ROLE {login} LOGIN NOINHERIT IN ROLE {owner}")
    for what in ("SCHEMA", "ALL TABLES IN SCHEMA", "ALL SEQUENCES IN SCHEMA"):
        project.execute(f"GRANT ALL ON {what} public TO {owner}")
    yield login, owner
    project.close()
    project.execute(f"DROP OWNED BY {owner}")
    project.execute(f"DROP ROLE {login}, {owner}")


def test_assumed_role_takes_over_from_a_frozen_process(
    project: Project, roles: tuple[str, str]
) -> None:
    login, owner = roles
    project.settings(f"default['USER'] = {login!r}\noptions['assume_role'] = {owner!r}")
    project.routines("""
        @routine
        def seed():
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_user || ' as ' || session_user")
                effect(cursor.fetchone()[0])
            hold("seed")
    """)
    frozen = project.once("run")
    project.wait_for("seed")
    frozen.send(signal.SIGSTOP)
    successor = project.once("run")
    project.wait_for("seed", processes=2)
    project.release("seed")
    assert successor.finish() == 0, successor.output
    frozen.send(signal.SIGCONT)
    assert frozen.finish() == 0, frozen.output
    assert project.effects() == [f"{owner} as {login}"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


# Settings of the project


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_times_without_use_tz(project: Project) -> None:
    zone = ZoneInfo("Pacific/Kiritimati")  # 14 hours from UTC
    project.settings(f"USE_TZ = False\nTIME_ZONE = {zone.key!r}\n")
    project.environment["ONCE_RETRY_DELAY"] = "600"
    project.routines("""
        @routine(over=lambda: range(10), batch_size=2)
        def seed(numbers):
            time.sleep(0.05)

        @routine
        def fail():
            raise ValueError("no such brand")
    """)
    failing = project.once("run")
    assert failing.finish() == 1, failing.output
    found = project.status()
    begun = datetime.fromisoformat(found["plant.seed"]["started_at"])
    ended = datetime.fromisoformat(found["plant.seed"]["completed_at"])
    assert abs(datetime.now(UTC) - begun) < timedelta(minutes=10)
    assert ended >= begun
    assert 0.25 <= found["plant.seed"]["duration_seconds"] < 600
    assert 10 / 600 < found["plant.seed"]["rate"] <= 10 / 0.25
    retry = datetime.fromisoformat(found["plant.fail"]["retry_at"])
    failed = datetime.fromisoformat(found["plant.fail"]["started_at"])
    assert timedelta(seconds=599) < retry - failed < timedelta(seconds=720)
    shown = project.once("status")
    assert shown.finish() == 0
    assert f"{ended.astimezone(zone):%Y-%m-%d %H:%M:%S}" in shown.output


@pytest.mark.parametrize("kind", ["postgresql"])
def test_times_without_use_tz_and_without_zone_data(project: Project) -> None:
    """As in a small image: the zone's offset is not to be had, and nothing depends on it."""
    project.settings("""
import sys

sys.modules["tzdata"] = None  # as if the package were not installed
USE_TZ = False
TIME_ZONE = "America/Chicago"
""")
    project.environment.update(PYTHONTZPATH="", ONCE_RETRY_DELAY="600")
    project.routines("""
        @routine
        def fail():
            raise ValueError("no such brand")
    """)
    for number in (1, 2):
        failing = project.once("run")
        assert failing.finish() == 1, failing.output
        assert "ValueError: no such brand" in failing.output
        found = project.status()["plant.fail"]
        assert found["attempts"] == number
        began = datetime.fromisoformat(found["started_at"])
        assert abs(datetime.now(UTC) - began) < timedelta(minutes=10)
        shown = project.once("status")
        assert shown.finish() == 0, shown.output
        assert f"{began:%Y-%m-%d %H:%M:%S} UTC" in shown.output


PREFIX = """
from django.db.models.signals import class_prepared


def prefix(sender, **kwargs):
    if not sender._meta.db_table.startswith("Acme_"):
        sender._meta.db_table = "Acme_" + sender._meta.db_table


class_prepared.connect(prefix)
"""


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
@pytest.mark.parametrize("is_migrated", [False])
def test_prefix_of_all_tables(project: Project) -> None:
    project.settings(PREFIX)
    project.routines("""
        @routine
        def seed():
            pass

        @routine(over=lambda: range(3), batch_size=2)
        def fill(numbers):
            pass

        @routine(atomic=False, retry=False)
        def fail():
            raise ValueError("no such brand")
    """)
    failing = project.once("run", "--migrate", "-v0")
    assert failing.finish() == 1, failing.output
    reset = project.once("reset", "plant.fail", "--no-input")
    assert reset.finish() == 0, reset.output
    assert {name: one["state"] for name, one in project.status().items()} == {
        "plant.seed": "completed",
        "plant.fill": "completed",
        "plant.fail": "pending",
    }
    doctor = project.once("doctor")
    assert doctor.finish() == 0, doctor.output


def test_default_auto_field(project: Project) -> None:
    project.settings("DEFAULT_AUTO_FIELD = 'django.db.models.SmallAutoField'")
    process = project.manage("makemigrations", "once", "--check", "--dry-run")
    assert process.finish() == 0, process.output


def test_databases_that_are_refused(project: Project) -> None:
    project.settings("""
DATABASES["committing nothing"] = {**default, "AUTOCOMMIT": False}
DATABASES["of another kind"] = {"ENGINE": "django.db.backends.dummy"}
DATABASES["routed"] = default
DATABASE_ROUTERS = ["plant.settings.Router"]


class Router:
    def allow_migrate(self, db, app_label, **hints):
        return db != "routed"
""")
    project.routines("""
        for using in ("committing nothing", "of another kind", "routed", "missing"):
            @routine(name=f"plant.{using.split()[0]}", using=using)
            def seed(run):
                effect("seed")
    """)
    refused = project.once("run")
    assert refused.finish() == 2
    assert set(re.findall(r"once\.E\d+", refused.output)) == {
        "once.E002",
        "once.E003",
        "once.E005",
        "once.E006",
    }
    assert project.attempts() == []
