"""What fires the run of a process, once, and what only arms it."""

import asyncio
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.test import Client, override_settings

from once import Routine, conf
from once.exceptions import RoutineFailed
from once.routines.registry import Registry
from once.startup import firing, launch, serve
from tests.unit.frames import in_frame
from tests.unit.test_serving import events

FOUND = Registry([Routine(function=lambda: None, name="shop.seed")])
GUNICORN = in_frame("gunicorn.arbiter", "spawn_worker")
MADE = pytest.mark.parametrize("make", [WSGIHandler, ASGIHandler])


class Process:
    """Stands for a process that no test started, in which runs are noted and not done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self.error: BaseException | None = None
        monkeypatch.setattr(serve, "begin", lambda found, by: self._note("start", found))
        monkeypatch.setattr(serve, "go_on", lambda found, by: self._note("beside", found))

    def _note(self, how: str, found: Registry) -> None:
        assert found is FOUND
        self.begun.append(how)
        if self.error is not None:
            raise self.error


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Process]:
    caplog.set_level("DEBUG", "once")
    for name in (*conf.NAMES, conf.TESTS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "is_test", lambda: False)
    monkeypatch.setattr(firing, "_firing", None)
    # Django's own would look after connections, which are for tests of databases.
    for sent in (request_started, request_finished):
        monkeypatch.setattr(sent, "receivers", [])
    monkeypatch.setattr("django.test.client.close_old_connections", lambda **kwargs: None)
    # Another test may have armed this process itself.
    unarmed = inspect.unwrap(BaseHandler.load_middleware)
    monkeypatch.setattr(BaseHandler, "load_middleware", unarmed)
    for name in ("worker_init", "beat_init"):
        monkeypatch.setattr(f"celery.signals.{name}.receivers", [])
    with override_settings(MIDDLEWARE=[]):
        yield Process(monkeypatch)


def ask(kind: type | None = WSGIHandler) -> None:
    request_started.send(sender=kind, environ={})


@MADE
def test_handler_in_a_known_server_fires(
    started: Process, make: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    firing.arm(FOUND)
    assert started.begun == []
    GUNICORN(make)
    assert started.begun == ["start"]
    assert caplog.messages == ["event=startup_fired by=gunicorn"]
    GUNICORN(make)
    ask()
    assert started.begun == ["start"]


@MADE
def test_handler_elsewhere_arms_and_its_first_request_fires(
    started: Process, make: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    firing.arm(FOUND)
    make()
    make()
    assert started.begun == []
    assert events(caplog) == ["startup_armed"]
    ask(type(make()))
    assert started.begun == ["beside"]
    ask()
    GUNICORN(make)
    assert started.begun == ["beside"]
    assert caplog.messages[1:] == ['event=startup_fired by="first request"']


def test_first_request_of_an_asgi_handler_fires(started: Process) -> None:
    firing.arm(FOUND)
    asyncio.run(request_started.asend(sender=ASGIHandler, scope={}))
    assert started.begun == ["beside"]


def test_first_requests_of_several_threads_fire_once(started: Process) -> None:
    firing.arm(FOUND)
    together = threading.Barrier(4)

    def request() -> None:
        together.wait(30)
        ask()

    threads = [threading.Thread(target=request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert started.begun == ["beside"]


@override_settings(ROOT_URLCONF="tests.urls")
def test_client_of_tests_and_other_senders_fire_nothing(
    started: Process, caplog: pytest.LogCaptureFixture
) -> None:
    firing.arm(FOUND)
    GUNICORN(lambda: Client().get("/nothing/"))
    ask(None)
    assert started.begun == []
    assert "event=" not in caplog.text


def test_middleware_is_loaded_after_the_run(
    started: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BaseHandler, "load_middleware", lambda *args: started.begun.append("load"))
    firing.arm(FOUND)
    GUNICORN(WSGIHandler)
    assert started.begun == ["start", "load"]


def test_run_that_stops_the_server_stops_it_again(started: Process) -> None:
    started.error = RoutineFailed("shop.seed: ValueError: no such brand")
    firing.arm(FOUND)
    for _ in range(2):
        with pytest.raises(RoutineFailed):
            GUNICORN(WSGIHandler)
    assert started.begun == ["start"] * 2


def test_handler_made_by_a_body_fires_nothing(
    started: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(found: Registry, by: str) -> None:
        started.begun.append("start")
        WSGIHandler()

    monkeypatch.setattr(serve, "begin", begin)
    firing.arm(FOUND)
    GUNICORN(WSGIHandler)
    assert started.begun == ["start"]


def test_apps_that_are_loaded_again_arm_once(started: Process) -> None:
    firing.arm(FOUND)
    firing.arm(FOUND)
    GUNICORN(WSGIHandler)
    firing.arm(FOUND)
    GUNICORN(WSGIHandler)
    assert started.begun == ["start"]


@override_settings(ONCE_STARTUP="off")
def test_off_neither_arms_nor_fires(started: Process, caplog: pytest.LogCaptureFixture) -> None:
    firing.arm(FOUND)
    WSGIHandler()
    ask()
    GUNICORN(WSGIHandler)
    assert started.begun == []
    assert events(caplog) == []


@override_settings(ONCE_STARTUP="of")
def test_wrong_setting_is_named_where_a_handler_is_made(started: Process) -> None:
    firing.arm(FOUND)
    for make in (WSGIHandler, lambda: GUNICORN(WSGIHandler)):
        with pytest.raises(ImproperlyConfigured, match="ONCE_STARTUP"):
            make()
    assert started.begun == []


# Tests


def test_process_of_tests_is_silent(
    started: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(launch, "is_test", lambda: True)
    firing.arm(FOUND)
    WSGIHandler()
    ask()
    GUNICORN(WSGIHandler)
    assert started.begun == []
    assert events(caplog) == []


@pytest.mark.parametrize("fire", [lambda: GUNICORN(WSGIHandler), ask], ids=["server", "request"])
def test_what_a_test_started_says_that_it_runs_nothing(
    started: Process,
    fire: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(conf.TESTS, "1")
    firing.arm(FOUND)
    fire()
    fire()
    assert started.begun == []
    assert events(caplog) == ["startup_refused"]
    assert "Remove ONCE_TESTS" in caplog.text
    assert caplog.records[0].levelname == "WARNING"


# Commands and Celery


def test_command_that_serves_fires_as_django_is_set_up(
    started: Process, caplog: pytest.LogCaptureFixture
) -> None:
    owner = SimpleNamespace(argv=["manage.py", "runserver", "--noreload"])
    in_frame("django.core.management", "execute", owner)(lambda: firing.arm(FOUND))
    assert started.begun == ["start"]
    assert caplog.messages == ['event=startup_fired by="manage.py runserver"']


@pytest.mark.parametrize(
    ("module", "function", "signal"),
    [
        ("celery.worker.worker", "setup_instance", "worker_init"),
        ("celery.beat", "start", "beat_init"),
    ],
)
def test_celery_fires_as_it_begins(
    started: Process, module: str, function: str, signal: str, caplog: pytest.LogCaptureFixture
) -> None:
    from celery import signals

    firing.arm(FOUND)
    assert started.begun == []
    for _ in range(2):
        in_frame(module, function)(lambda: getattr(signals, signal).send(sender=None))
    assert started.begun == ["start"]
    assert caplog.messages[0].startswith('event=startup_fired by="celery ')


def test_celery_that_has_begun_fires_as_django_is_set_up(started: Process) -> None:
    in_frame("celery.worker.worker", "setup_instance")(lambda: firing.arm(FOUND))
    assert started.begun == ["start"]


def test_failure_stops_celery_which_goes_on_after_what_a_receiver_raises(started: Process) -> None:
    from celery.signals import worker_init

    started.error = RoutineFailed("shop.seed: ValueError: no such brand")
    firing.arm(FOUND)
    with pytest.raises(SystemExit) as ended:
        in_frame("celery.worker.worker", "setup_instance")(lambda: worker_init.send(sender=None))
    assert ended.value.code == "RoutineFailed: shop.seed: ValueError: no such brand"


def test_process_without_celery_loads_none_of_it(
    started: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "celery.signals")
    firing.arm(FOUND)
    assert "celery.signals" not in sys.modules
