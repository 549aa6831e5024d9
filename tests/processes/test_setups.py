"""Set-ups of Django's databases: what runs once on a plain PostgreSQL does on each of them."""

import importlib.util
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.processes.http import Serve, Server
from tests.project import Project
from tests.servers import missing

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


def set_up(project: Project, settings: str, pages: str = PAGES) -> None:
    """Give a project further settings."""
    prelude = (
        "from tests.settings import *\n"
        "ROOT_URLCONF = 'plant.pages'\n"
        "default = DATABASES['default']\n"
        "options = default.setdefault('OPTIONS', {})\n"
    )
    (project.directory / "plant" / "pages.py").write_text(pages)
    (project.directory / "plant" / "setup.py").write_text(prelude + settings)
    project.environment["DJANGO_SETTINGS_MODULE"] = "plant.setup"


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        missing(package)


def page(server: Server, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
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
#: What the installation of a set-up needs.
NEEDS = {"pool": "psycopg_pool", "prometheus": "django_prometheus"}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_setup(project: Project, serve: Serve, name: str) -> None:
    if package := NEEDS.get(name.split()[0]):
        needs(package)
    set_up(project, CONNECTIONS[name])
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
    assert all(set(one) <= {"TimeZone"} for one in left), left
    assert not server.process.output.count("Traceback"), server.output
    assert _open(project) == []


def _open(project: Project) -> list[tuple[Any, ...]]:
    """What sessions hold or are in the middle of."""
    return project.rows(
        "SELECT state, query, locktype FROM pg_stat_activity LEFT JOIN pg_locks USING (pid) "
        "WHERE datname = current_database() AND backend_type = 'client backend' "
        "AND pid <> pg_backend_pid() AND (state <> 'idle' OR locktype IS NOT NULL)"
    )
