"""No test starts routines by accident, least of all in the real database, whatever it imports."""

import sys
import textwrap

import pytest

from tests.project import IN_PROCESSES, Project

pytestmark = pytest.mark.django_db(databases=[])

ROUTINES = """
    from pathlib import Path

    @routine
    def seed():
        (Path(__file__).parent / "started").touch()
        effect("seed")
"""
#: A server's entry, which sets Django up unless somebody did.
IMPORTS = """
    from tests.wsgi import application
    from tests.asgi import application as asynchronous
"""
PYTEST = f"""
    {IMPORTS}
    def test_imported():
        assert application and asynchronous
"""
#: Starts what counts as a server, and asks it what it did.
SERVER = """
    import os, subprocess, sys

    def check():
        command = [sys.executable, "-m", "tests.manage", "shell", "-v0", "-c", "pass"]
        environment = {**os.environ, "ONCE_STARTUP_COMMANDS": "shell"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "event=startup_refused" in done.stderr
        assert "Remove ONCE_TESTS" in done.stderr

"""
PYTEST_SERVER = f"""
    {SERVER}
    def test_server():
        check()
"""
DJANGO_SERVER = f"""
    from django.test import SimpleTestCase
    {SERVER}
    class Starts(SimpleTestCase):
        def test_server(self):
            check()
"""
UNITTEST = f"""
    import unittest
    {IMPORTS}
    class Imported(unittest.TestCase):
        def test_imported(self):
            self.assertTrue(application)
"""
#: As the live server of Channels does where processes are spawned.
SPAWNED = """
    import multiprocessing

    def serve():
        from tests.wsgi import application
        assert application

    def test_spawned():
        child = multiprocessing.get_context("spawn").Process(target=serve)
        child.start()
        child.join()
        assert child.exitcode == 0
"""
LIVE = """
    import urllib.error, urllib.request

    import pytest
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.test import LiveServerTestCase
    from tests.shop.models import Effect

    def ask(url):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/ready/")
        caught.value.close()
        assert caught.value.code == 503  # it asked the test database, where nothing ran
        assert get_wsgi_application() and get_asgi_application()
        assert not Effect.objects.exists()

    class Live(LiveServerTestCase):
        def test_live(self):
            ask(self.live_server_url)
"""
LIVE_FIXTURE = """
    def test_fixture(live_server):
        ask(live_server.url)
"""

BARE = ("pytest", "-p", "no:django", "-p", "no:cacheprovider", "-c", "{plant}/pytest.ini")
DJANGO = ("pytest", "-p", "no:cacheprovider", "-c", "{plant}/pytest.ini", "--ds=tests.settings")
PROGRAMS = {
    "pytest": ((*BARE, "{plant}/tests.py"), {"tests.py": PYTEST}),
    "conftest": ((*BARE, "{plant}/tests.py"), {"conftest.py": IMPORTS, "tests.py": PYTEST}),
    "xdist": ((*BARE, "-n1", "{plant}/tests.py"), {"conftest.py": IMPORTS, "tests.py": PYTEST}),
    "spawned": ((*BARE, "{plant}/tests.py"), {"tests.py": SPAWNED}),
    "server": ((*BARE, "{plant}/tests.py"), {"tests.py": PYTEST_SERVER}),
    "server in xdist": ((*BARE, "-n1", "{plant}/tests.py"), {"tests.py": PYTEST_SERVER}),
    "server of manage test": (("tests.manage", "test", "plant"), {"tests.py": DJANGO_SERVER}),
    "unittest": (("unittest", "plant.tests"), {"tests.py": UNITTEST}),
    "manage test": (("tests.manage", "test", "plant"), {"tests.py": LIVE}),
    "pytest-django": ((*DJANGO, "{plant}/tests.py"), {"tests.py": LIVE + LIVE_FIXTURE}),
    "pytest-django in xdist": (
        (*DJANGO, "-n1", "{plant}/tests.py"),
        {"conftest.py": IMPORTS, "tests.py": LIVE + LIVE_FIXTURE},
    ),
}


@pytest.fixture(params=["sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def write(project: Project, **files: str) -> None:
    project.routines(ROUTINES)
    for name, source in {"pytest.ini": "[pytest]\n", **files}.items():
        (project.directory / "plant" / name).write_text(textwrap.dedent(source))


@pytest.mark.parametrize(("command", "files"), PROGRAMS.values(), ids=PROGRAMS)
def test_program_of_tests_starts_nothing(
    project: Project, command: tuple[str, ...], files: dict[str, str]
) -> None:
    write(project, **files)
    plant = project.directory / "plant"
    arguments = [argument.format(plant=plant) for argument in command]
    environment = {**IN_PROCESSES, "PYTEST_ADDOPTS": ""}
    process = project.start(sys.executable, "-m", *arguments, **environment)
    assert process.finish() == 0, process.output
    assert "event=started" not in process.output
    assert not (plant / "started").exists()
    assert project.attempts() == []


def test_same_server_without_tests_runs_what_is_pending(project: Project) -> None:
    """So that the tests above can fail."""
    write(project)
    process = project.server()
    assert process.finish() == 0, process.output
    assert project.effects() == ["seed"]
