"""What starts the routines of a process, and what does not, as docs/reference/servers.md says."""

import re
import sys
from typing import NamedTuple

import pytest

from tests.processes.http import Serve
from tests.project import ROOT, Project

pytestmark = pytest.mark.django_db(databases=[])

DOCUMENTATION = (ROOT / "docs" / "reference" / "servers.md").read_text()
ROUTINES = """
    @routine
    def seed():
        effect("seed")
"""
#: Begins for good, and is held where its process ends before it does.
ONCE_FOR_ALL = """
    @routine(atomic=False, retry=False)
    def announce():
        hold("announce")
"""
DONE, ARMED = "event=startup_complete", "event=startup_armed"
START, REQUEST, NEVER = "at its start", "at the first request", "never"
CONFIGURE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
"""
SET_UP = f"{CONFIGURE}import django\ndjango.setup()\n"
MADE = f"{SET_UP}from django.core.handlers.wsgi import WSGIHandler\napplication = WSGIHandler()\n"
ASGI_MADE = MADE.replace("wsgi", "asgi").replace("WSGI", "ASGI")
WSGIREF = """
from wsgiref.simple_server import make_server
make_server(sys.argv[1], int(sys.argv[2]), application).serve_forever()
"""
UVICORN = """
import sys, uvicorn
uvicorn.run({application}, host=sys.argv[1], port=int(sys.argv[2]))
"""
ALONE = """
import threading
assert threading.enumerate() == [threading.main_thread()]
"""
EMBEDDED = """
from gunicorn.app.base import BaseApplication

class Embedded(BaseApplication):
    def load_config(self):
        self.cfg.set("bind", ":".join(sys.argv[1:]))
        self.cfg.set("control_socket_disable", True)
    def load(self):
        return application

Embedded().run()
"""
GUNICORN = "gunicorn --no-control-socket --bind {address}"


class Launch(NamedTuple):
    """One row of the second table of docs/reference/servers.md."""

    #: What the table calls it, when it runs what is pending, and what the log says, where it does.
    shown: str
    runs: str
    log: str = ""
    #: The command; ``plant.program`` is the source below.
    command: str = "plant.program {host} {port}"
    source: str = ""


SERVERS = [
    Launch(
        "`django.setup()` before `get_wsgi_application()`, in gunicorn",
        START,
        f"{DONE} by=gunicorn",
        f"{GUNICORN} plant.program",
        f"{SET_UP}from tests.wsgi import application",
    ),
    Launch(
        "`WSGIHandler()` made by hand, in gunicorn",
        START,
        f"{DONE} by=gunicorn",
        f"{GUNICORN} plant.program",
        MADE,
    ),
    Launch(
        "`uvicorn --factory`",
        START,
        f"{DONE} by=uvicorn",
        "uvicorn --host {host} --port {port} --factory plant.program:make",
        f"{ASGI_MADE}make = ASGIHandler",
    ),
    Launch(
        '`uvicorn.run("config.asgi:application")` in a program',
        START,
        f"{DONE} by=uvicorn",
        source=UVICORN.format(application="'tests.asgi:application'"),
    ),
    Launch(
        "a command of `ONCE_STARTUP_COMMANDS`",
        START,
        f'{DONE} by="manage.py runserver"',
        "tests.manage runserver --noreload {address}",
    ),
    Launch(
        "`uvicorn.run(application)` in a program",
        REQUEST,
        ARMED,
        source=ASGI_MADE + UVICORN.format(application="application"),
    ),
    Launch("gunicorn's `BaseApplication` in a program", REQUEST, ARMED, source=MADE + EMBEDDED),
    Launch("`waitress`", REQUEST, ARMED, "waitress --listen {address} tests.wsgi:application"),
    Launch("`wsgiref`", REQUEST, ARMED, source=MADE + WSGIREF),
]
PROGRAMS = [
    Launch("`gunicorn --check-config`", NEVER, ARMED, "gunicorn --check-config tests.wsgi"),
    Launch("`gunicorn --print-config`", NEVER, ARMED, "gunicorn --print-config tests.wsgi"),
    Launch(
        "a script that calls `get_wsgi_application()`", NEVER, ARMED, source="import tests.wsgi"
    ),
    Launch("a script that makes a handler by hand", NEVER, ARMED, source=MADE),
    Launch("a script that calls `django.setup()`", NEVER, source=SET_UP),
    Launch(
        "a script that uses Django's test client",
        NEVER,
        source=f"{SET_UP}from django.test import Client\nassert Client().get('/nothing/')",
    ),
]


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.mark.parametrize("launch", SERVERS, ids=lambda launch: launch.shown)
def test_launch_of_a_server_runs_what_is_pending(
    project: Project, serve: Serve, launch: Launch
) -> None:
    project.routines(ROUTINES)
    (project.directory / "plant" / "program.py").write_text(launch.source)
    server = serve(launch.command)
    if launch.runs == START:
        server.process.wait_for(DONE)
        server.wait_for(200)
    else:
        server.wait_for(404, "/nothing/")  # answered at once, whatever runs
        server.wait_for(200)
        server.process.wait_for(f'{DONE} by="first request"')
    assert launch.log in server.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


@pytest.mark.parametrize("is_migrated", [True, False], ids=["migrated", "unmigrated"])
@pytest.mark.parametrize("launch", PROGRAMS, ids=lambda launch: launch.shown)
def test_launch_of_another_program_runs_nothing(
    project: Project, launch: Launch, is_migrated: bool
) -> None:
    """Nor does it leave a thread that would begin it once there are tables."""
    project.routines(ONCE_FOR_ALL)
    (project.directory / "plant" / "program.py").write_text(launch.source + ALONE)
    process = project.start(sys.executable, "-m", *launch.command.split())
    assert process.finish() == 0, process.output
    events = set(re.findall(r"event=\w+", process.output))
    assert events == ({launch.log} if launch.log else set())
    if not is_migrated:
        assert project.manage("migrate").finish() == 0
    assert project.attempts() == []


def test_documentation_says_what_these_tests_prove() -> None:
    table = DOCUMENTATION.partition("## What starts the routines")[2].partition("| a server of")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", table, re.MULTILINE)[1:]
    assert rows == [
        (launch.shown, launch.runs, f"`{launch.log}`" if launch.log else "")
        for launch in SERVERS + PROGRAMS
    ]
