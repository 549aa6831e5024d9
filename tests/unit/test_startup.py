"""Which process is a server, how the start is hooked, and the in-memory routines."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from once import Routine, process, server, serving, startup


@pytest.fixture(autouse=True)
def _plain_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py"])
    monkeypatch.setattr(server, "_is_called_by_tests", lambda: False)
    monkeypatch.delenv(DJANGO_AUTORELOAD_ENV, raising=False)
    monkeypatch.delenv("ONCE_STARTUP_COMMANDS", raising=False)


def called_from(module: str, function: str) -> Callable[..., bool]:
    """``is_server`` behind a frame of that function, whose first argument is called ``self``."""
    namespace: dict[str, Any] = {"__name__": module, "is_server": server.is_server}
    exec(f"def {function}(self=None):\n    return is_server()", namespace)
    called: Callable[..., bool] = namespace[function]
    return called


def command(*argv: str) -> bool:
    execute = called_from("django.core.management", "execute")
    return execute(SimpleNamespace(argv=["manage.py", *argv]))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/venv/bin/pytest", "-q"], False),
        (["/venv/bin/py.test"], False),
        (["/site-packages/pytest/__main__.py"], False),
        (["/lib/python3/unittest/__main__.py", "shop"], False),
        (["manage.py", "test"], False),
        (["./backend-manage.py", "test"], False),
        (["/venv/bin/django-admin", "test", "shop"], False),
        (["/site-packages/django/__main__.py", "test"], False),
        (["manage.py", "shell"], True),
        (["manage.py"], True),
        (["/venv/bin/gunicorn", "test"], True),
        (["/venv/bin/uvicorn", "test:application"], True),
        (["-c"], True),
        ([], True),
    ],
)
def test_program_that_runs_tests_is_no_server(
    argv: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert called_from("django.core.wsgi", "get_wsgi_application")() is expected


def test_what_a_test_or_a_conftest_imports_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["-c"])  # as in a worker of pytest-xdist
    assert called_from("django.core.wsgi", "get_wsgi_application")() is False


@pytest.mark.parametrize(
    ("module", "function", "expected"),
    [
        ("django.core.wsgi", "get_wsgi_application", True),
        ("django.core.asgi", "get_asgi_application", True),
        ("mysite.wsgi", "get_wsgi_application", False),
        ("django.core.wsgi", "other", False),
        ("django", "setup", False),
        ("_pytest.config", "main", False),
    ],
)
def test_server_by_frame(module: str, function: str, expected: bool) -> None:
    assert called_from(module, function)() is expected


def test_this_test_is_no_server() -> None:
    assert not server.is_server()


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
def test_command_is_no_server(argv: list[str]) -> None:
    assert not command(*argv)


def test_runserver_is_one_in_the_child_of_its_reloader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DJANGO_AUTORELOAD_ENV, "true")
    assert command("runserver")
    assert not command("migrate")


def test_runserver_is_one_without_its_reloader() -> None:
    assert command("runserver", "--noreload")


@override_settings(ONCE_STARTUP_COMMANDS=["work"])
def test_command_is_a_server_where_a_setting_says_so() -> None:
    assert command("work", "--fast")
    assert not command("runserver", "--noreload")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("/usr/bin/celery -A shop worker -l info", True),
        ("celery -A shop beat", True),
        ("celery --quiet worker", True),
        ("celery --app shop worker", True),
        ("celery -b redis:// --loader app --config shop beat", True),
        ("celery --broker redis:// --result-backend redis:// --workdir /srv beat", True),
        ("celery --app worker", False),
        ("celery", False),
        ("/venv/lib/celery/__main__.py worker", True),
        ("celery -A shop inspect ping", False),
        ("celery -A shop flower", False),
        ("/srv/worker.py worker", False),
        ("pytest beat", False),
        ("-c", False),
        ("", False),
    ],
)
def test_celery_by_its_arguments(
    argv: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", argv.split())
    assert server.is_server() is expected


def uwsgi(
    monkeypatch: pytest.MonkeyPatch, *, version: int = 31, worker: int = 0, options: str = ""
) -> None:
    module = ModuleType("uwsgi")
    module.version_info = (2, 0, version, 0, b"")  # type: ignore[attr-defined]
    module.worker_id = lambda: worker  # type: ignore[attr-defined]
    module.opt = dict.fromkeys(map(str.encode, options.split()), True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uwsgi", module)


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        (26, "master", True),
        (26, "enable-threads", False),
        (26, "threads", False),
        (27, "master", False),
    ],
)
def test_threads_by_version_and_options_of_uwsgi(
    version: int, options: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not server.lacks_threads()
    uwsgi(monkeypatch, version=version, options=options)
    assert server.lacks_threads() is expected


@pytest.mark.parametrize(("worker", "expected"), [(0, True), (1, False)])
def test_fork_of_uwsgi_by_the_number_of_its_worker(
    worker: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not server.will_fork()
    uwsgi(monkeypatch, worker=worker)
    assert server.will_fork() is expected


def test_once_serving_outside_of_what_forks_calls_at_once() -> None:
    calls: list[bool] = []
    server.once_serving(lambda: calls.append(True))
    assert calls == [True]


def test_once_serving_in_the_master_of_gunicorn_calls_in_each_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr(
        os, "register_at_fork", lambda *, after_in_child: hooks.append(after_in_child)
    )
    namespace: dict[str, Any] = {
        "__name__": "gunicorn.arbiter",
        "once_serving": server.once_serving,
    }
    exec("def setup(function):\n    once_serving(function)", namespace)
    namespace["setup"](lambda: calls.append(True))
    [hook] = hooks
    hook()  # in what somebody else forks
    assert calls == []
    monkeypatch.setattr(os, "getppid", os.getpid)
    hook()
    hook()
    assert calls == [True, True]


@pytest.mark.parametrize(
    ("module", "function", "expected"),
    [
        ("gunicorn.arbiter", "setup", True),
        ("gunicorn.arbiter", "spawn_worker", False),
        ("django", "setup", False),
    ],
)
def test_fork_of_gunicorn_by_frame(module: str, function: str, expected: bool) -> None:
    namespace: dict[str, Any] = {"__name__": module, "will_fork": server.will_fork}
    exec(f"def {function}():\n    return will_fork()", namespace)
    assert namespace[function]() is expected


@pytest.mark.parametrize("has_decorators", [True, False])
def test_once_serving_before_the_fork_of_uwsgi_calls_after_it(
    has_decorators: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    uwsgi(monkeypatch)
    module: Any = sys.modules["uwsgi"]
    decorators: Any = ModuleType("uwsgidecorators")
    if has_decorators:
        decorators.postfork = lambda function: setattr(decorators, "hook", function)
    monkeypatch.setitem(sys.modules, "uwsgidecorators", decorators)
    server.once_serving(lambda: calls.append(True))
    assert calls == []
    hook = decorators.hook if has_decorators else module.post_fork_hook
    assert hasattr(module, "post_fork_hook") is not has_decorators
    hook()
    assert calls == [True]


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_once_serving_in_celery_calls_once_it_is_ready(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery.signals import beat_init, worker_ready

    calls: list[bool] = []
    monkeypatch.setattr(sys, "argv", ["celery", program])
    monkeypatch.setattr(worker_ready, "receivers", [])
    monkeypatch.setattr(beat_init, "receivers", [])
    server.once_serving(lambda: calls.append(True))
    gc.collect()  # nobody else holds what is called
    assert calls == []
    ready = worker_ready if program == "worker" else beat_init
    ready.send(sender=None)
    assert calls == [True]
    worker_ready.send(sender=None)  # again, after the broker was away
    assert calls == [True]


def test_arm_calls_once_when_the_apps_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    event = threading.Event()
    registry = SimpleNamespace(ready=False, ready_event=event)
    monkeypatch.setattr(startup, "apps", registry)
    monkeypatch.setattr(startup, "on_ready", lambda: calls.append(event.is_set()))
    startup.arm()
    assert calls == []
    assert not registry.ready_event.is_set()
    registry.ready_event.set()
    registry.ready_event.set()
    assert calls == [True]
    assert registry.ready_event is event


def test_arm_after_the_apps_are_ready_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError

    assert apps.ready
    before = apps.ready_event.set
    monkeypatch.setattr(startup, "on_ready", fail)
    startup.arm()
    assert apps.ready_event.set == before
    apps.ready_event.set()


@pytest.mark.parametrize("event", [None, object()])
def test_arm_fails_loudly_where_django_changed(
    event: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "apps", SimpleNamespace(ready=False, ready_event=event))
    with pytest.raises(ImproperlyConfigured, match="Upgrade django-once"):
        startup.arm()


def test_on_ready_runs_the_process_routines_of_every_process(declared: list[Routine]) -> None:
    calls: list[str] = []
    for name in ("b", "a"):
        declared.append(in_memory(name, calls))
    declared.append(in_memory("by hand", calls, startup=False))
    declared.append(Routine(function=lambda: calls.append("recorded"), name="recorded"))
    startup.on_ready()
    startup.on_ready()
    assert calls == ["b", "a"]


@pytest.mark.parametrize(
    ("is_server", "setting", "names", "begins"),
    [
        (True, "run", ["recorded"], True),
        (True, "background", ["recorded"], True),
        (True, "off", ["recorded"], False),
        (True, "run", [], False),
        (False, "run", ["recorded"], False),
    ],
)
def test_on_ready_begins_what_is_recorded_in_servers_alone(
    declared: list[Routine],
    is_server: bool,
    setting: str,
    names: list[str],
    begins: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[list[str]] = []
    declared += [Routine(function=lambda: None, name=name) for name in names]
    monkeypatch.setattr(server, "is_server", lambda: is_server)
    monkeypatch.setattr(
        serving, "begin", lambda found: begun.append([routine.name for routine in found.startup])
    )
    with override_settings(ONCE_STARTUP=setting):
        startup.on_ready()
    assert begun == [names] * begins


@pytest.mark.parametrize("forks", [True, False])
def test_on_ready_leaves_no_thread_to_who_forks(
    declared: list[Routine], forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait, args=[30])
    declared.append(Routine(function=thread.start, name="lingering", scope="process"))
    monkeypatch.setattr(server, "will_fork", lambda: forks)

    class Time:
        monotonic = time.monotonic

        @staticmethod
        def sleep(seconds: float) -> None:
            may_end.set()

    monkeypatch.setattr(startup, "time", Time)
    startup.on_ready()
    assert thread.is_alive() is not forks
    may_end.set()
    thread.join(30)


@pytest.mark.parametrize(
    ("counts", "pauses"), [([3, 3], 0), ([3, 2], 0), ([3, 5, 4, 3], 2), ([3, *[4] * 2000], 1000)]
)
def test_threads_are_waited_for_until_they_end_or_for_a_second(
    counts: list[int], pauses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(counts)
    slept: list[float] = []
    monkeypatch.setattr(startup, "_count_threads", lambda: next(left))
    clock = SimpleNamespace(monotonic=lambda: sum(slept) - 1e-6, sleep=slept.append)
    monkeypatch.setattr(startup, "time", clock)
    with startup._leaving_no_thread():
        pass
    assert len(slept) == pytest.approx(pauses, abs=pauses // 500)


def test_threads_are_those_that_the_operating_system_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = {"/proc/self/task": ["1", "2", "3"]}
    monkeypatch.setattr(os, "listdir", tasks.__getitem__)
    assert startup._count_threads() == 3


def test_threads_are_those_of_python_where_there_is_no_proc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert startup._count_threads() == threading.active_count()


def in_memory(name: str, calls: list[str], **options: Any) -> Routine:
    function = lambda: calls.append(name)  # noqa: E731
    return Routine(function=function, name=name.replace(" ", "_"), scope="process", **options)


@pytest.mark.usefixtures("declared")
def test_process_routines_run_once_in_their_order() -> None:
    calls: list[str] = []
    routines = [in_memory(name, calls) for name in ("b", "a", "c")]
    assert not process.has_run(routines[0])
    process.run(routines[:2])
    process.run(routines)
    assert calls == ["b", "a", "c"]
    assert all(map(process.has_run, routines))


@pytest.mark.usefixtures("declared")
def test_process_routines_run_once_in_concurrent_threads() -> None:
    calls: list[str] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert go_on.wait(30)
        calls.append("slow")

    routines = [Routine(function=slow, name="slow", scope="process")]
    threads = [threading.Thread(target=process.run, args=[routines]) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert entered.wait(30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert calls == ["slow"]


@pytest.mark.usefixtures("declared")
def test_process_routine_that_failed_is_named_and_tried_again() -> None:
    calls: list[str] = []

    def flaky() -> None:
        calls.append("flaky")
        if len(calls) == 1:
            raise LookupError("first time")

    routines = [
        Routine(function=flaky, name="flaky", scope="process"),
        in_memory("next", calls),
    ]
    with pytest.raises(LookupError) as failure:
        process.run(routines)
    assert failure.value.__notes__ == ["Raised by the routine flaky (process scope)."]
    assert calls == ["flaky"]
    process.run(routines)
    assert calls == ["flaky", "flaky", "next"]
