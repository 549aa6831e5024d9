"""What launches a process: by its stack, its modules and its environment."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
from django.test import override_settings
from django.test.utils import _TestState
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from once import conf
from once.startup import launch
from tests.unit.frames import in_frame


@pytest.fixture(autouse=True)
def _plain_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (DJANGO_AUTORELOAD_ENV, "ONCE_STARTUP_COMMANDS", conf.TESTS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("module", "function", "expected"),
    [
        ("gunicorn.arbiter", "setup", "gunicorn"),
        ("gunicorn.arbiter", "spawn_worker", "gunicorn"),
        ("gunicorn.app.base", "run", ""),  # --check-config
        ("uvicorn.main", "run", "uvicorn"),
        ("uvicorn.server", "_serve", "uvicorn"),
        ("hypercorn.asyncio.run", "asyncio_worker", "hypercorn"),
        ("hypercorn.trio.run", "trio_worker", "hypercorn"),
        ("hypercorn.run", "run", ""),  # a master that watches files
        ("granian.server.mp", "wrapped", "granian"),
        ("daphne.cli", "run", "daphne"),
        ("celery.worker.worker", "setup_instance", "celery worker"),
        ("celery.beat", "start", "celery beat"),
        ("celery.app.base", "worker_main", ""),
        ("django.core.wsgi", "get_wsgi_application", ""),
        ("mysite.wsgi", "run", ""),
    ],
)
def test_known_server_by_what_is_on_the_stack(module: str, function: str, expected: str) -> None:
    assert in_frame(module, function)(launch.known_server) == expected


@pytest.mark.parametrize(
    ("name", "attribute", "expected"),
    [
        ("uwsgi", "", "uwsgi"),
        ("mod_wsgi", "process_group", "mod_wsgi"),
        ("mod_wsgi", "", ""),  # the package that installs it
    ],
)
def test_known_server_by_the_module_of_what_embeds_python(
    name: str, attribute: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType(name)
    vars(module)[attribute] = ""
    monkeypatch.setitem(sys.modules, name, module)
    assert launch.known_server() == expected


def is_startup_command(*argv: str) -> bool:
    owner = SimpleNamespace(argv=["manage.py", *argv])
    execute = in_frame("django.core.management", "execute", owner)
    return bool(execute(launch.is_startup_command))


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["migrate"],
        ["shell"],
        ["test"],
        ["once", "run"],
        ["collectstatic", "runserver"],
        ["help", "runserver"],
        ["runserver"],
        ["runserver", "0.0.0.0:80"],
        ["runserver", "--noreload", "-h"],
        ["runserver", "--noreload", "--help"],
        ["runserver", "--noreload", "--version"],
    ],
    ids=" ".join,
)
def test_command_does_not_start(argv: list[str]) -> None:
    assert not is_startup_command(*argv)


def test_runserver_starts_in_the_child_of_its_reloader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DJANGO_AUTORELOAD_ENV, "true")
    assert is_startup_command("runserver")
    assert not is_startup_command("migrate")


def test_runserver_starts_without_its_reloader() -> None:
    assert is_startup_command("runserver", "--noreload")


@override_settings(ONCE_STARTUP_COMMANDS=["work"])
def test_command_starts_where_a_setting_says_so() -> None:
    assert is_startup_command("work", "--fast")
    assert not is_startup_command("runserver", "--noreload")


def test_program_without_a_command_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", "runserver", "--noreload"])
    assert launch.command() == []
    assert not launch.is_startup_command()


def test_test_environment_of_django_is_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.is_test()
    monkeypatch.delattr(_TestState, "saved_data")
    assert not launch.is_test()


def test_process_that_runs_tests_is_one_and_what_it_starts_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(_TestState, "saved_data")
    monkeypatch.setenv(conf.TESTS, str(os.getpid()))
    assert launch.is_test()
    monkeypatch.setenv(conf.TESTS, str(os.getppid()))
    assert not launch.is_test()
