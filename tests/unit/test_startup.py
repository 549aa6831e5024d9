"""How the start of Django is hooked, what forks, and the in-memory routines."""

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

from once import Routine, conf
from once.routines import in_memory
from once.startup import firing, forking, hook, launch
from tests.unit.frames import in_frame


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
    assert not forking.lacks_threads()
    uwsgi(monkeypatch, version=version, options=options)
    assert forking.lacks_threads() is expected


@pytest.mark.parametrize(("worker", "expected"), [(0, True), (1, False)])
def test_fork_of_uwsgi_by_the_number_of_its_worker(
    worker: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not forking.will_fork()
    uwsgi(monkeypatch, worker=worker)
    assert forking.will_fork() is expected


def test_once_serving_outside_of_what_forks_calls_at_once() -> None:
    calls: list[bool] = []
    forking.once_serving(lambda: calls.append(True))
    assert calls == [True]


def test_once_serving_in_the_master_of_gunicorn_calls_in_each_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr(
        os, "register_at_fork", lambda *, after_in_child: hooks.append(after_in_child)
    )
    in_frame("gunicorn.arbiter", "setup")(lambda: forking.once_serving(lambda: calls.append(True)))
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
        ("celery.worker.worker", "setup_instance", True),
        ("celery.beat", "start", False),
        ("django", "setup", False),
    ],
)
def test_fork_by_what_is_on_the_stack(module: str, function: str, expected: bool) -> None:
    assert in_frame(module, function)(forking.will_fork) is expected


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
    forking.once_serving(lambda: calls.append(True))
    assert calls == []
    hook = decorators.hook if has_decorators else module.post_fork_hook
    assert hasattr(module, "post_fork_hook") is not has_decorators
    hook()
    assert calls == [True]


def test_once_serving_in_a_celery_worker_calls_once_it_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from celery.signals import worker_ready

    calls: list[bool] = []
    monkeypatch.setattr(worker_ready, "receivers", [])
    in_frame("celery.worker.worker", "setup_instance")(
        lambda: forking.once_serving(lambda: calls.append(True))
    )
    gc.collect()  # nobody else holds what is called
    assert calls == []
    worker_ready.send(sender=None)
    assert calls == [True]
    worker_ready.send(sender=None)  # again, after the broker was away
    assert calls == [True]


def test_arm_calls_once_when_the_apps_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    event = threading.Event()
    registry = SimpleNamespace(ready=False, ready_event=event)
    monkeypatch.setattr(hook, "apps", registry)
    monkeypatch.setattr(hook, "on_ready", lambda: calls.append(event.is_set()))
    hook.arm()
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
    monkeypatch.setattr(hook, "on_ready", fail)
    hook.arm()
    assert apps.ready_event.set == before
    apps.ready_event.set()


def test_arm_again_from_a_ready_behind_it_calls_once_at_the_end_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    event = threading.Event()
    registry = SimpleNamespace(ready=False, ready_event=event)
    monkeypatch.setattr(hook, "apps", registry)
    monkeypatch.setattr(hook, "on_ready", lambda: calls.append(True))
    populate = in_frame("django.apps.registry", "populate")

    def load() -> None:
        hook.arm()
        registry.ready_event.set()

    def load_twice() -> None:
        hook.arm()
        populate(load)
        assert event.is_set()
        assert calls == []
        registry.ready_event.set()

    populate(load_twice)
    assert calls == [True]
    assert registry.ready_event is event


@pytest.mark.parametrize("event", [None, object()])
def test_arm_fails_loudly_where_django_changed(
    event: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "apps", SimpleNamespace(ready=False, ready_event=event))
    with pytest.raises(ImproperlyConfigured, match="Upgrade django-once"):
        hook.arm()


def test_on_ready_runs_the_process_routines_of_every_process(declared: list[Routine]) -> None:
    calls: list[str] = []
    for name in ("b", "a"):
        declared.append(memory_routine(name, calls))
    declared.append(memory_routine("by hand", calls, startup=False))
    hook.on_ready()
    hook.on_ready()
    assert calls == ["b", "a"]


@pytest.mark.parametrize("names", [["recorded"], []])
def test_on_ready_arms_what_is_recorded(
    declared: list[Routine], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    armed: list[list[str]] = []
    declared += [Routine(function=lambda: None, name=name) for name in names]
    monkeypatch.setattr(
        firing, "arm", lambda found: armed.append([routine.name for routine in found.startup])
    )
    hook.on_ready()
    assert armed == [names] * bool(names)


@pytest.mark.parametrize(("name", "is_told"), [("test", True), ("check", False)])
@pytest.mark.usefixtures("declared")
def test_on_ready_under_the_test_command_tells_what_that_starts(
    name: str, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "command", lambda: [name, "shop"])
    monkeypatch.setattr(os, "environ", {})
    hook.on_ready()
    assert os.environ == ({conf.TESTS: str(os.getpid())} if is_told else {})


@pytest.mark.parametrize("forks", [True, False])
def test_on_ready_leaves_no_thread_to_who_forks(
    declared: list[Routine], forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait, args=[30])
    declared.append(Routine(function=thread.start, name="lingering", scope="process"))
    monkeypatch.setattr(forking, "will_fork", lambda: forks)

    class Time:
        monotonic = time.monotonic

        @staticmethod
        def sleep(seconds: float) -> None:
            may_end.set()

    monkeypatch.setattr(forking, "time", Time)
    hook.on_ready()
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
    monkeypatch.setattr(forking, "will_fork", lambda: True)
    monkeypatch.setattr(forking, "_count_threads", lambda: next(left))
    clock = SimpleNamespace(monotonic=lambda: sum(slept) - 1e-6, sleep=slept.append)
    monkeypatch.setattr(forking, "time", clock)
    with forking.leaving_no_thread():
        pass
    assert len(slept) == pytest.approx(pauses, abs=pauses // 500)


def test_threads_are_those_that_the_operating_system_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = {"/proc/self/task": ["1", "2", "3"]}
    monkeypatch.setattr(os, "listdir", tasks.__getitem__)
    assert forking._count_threads() == 3


def test_threads_are_those_of_python_where_there_is_no_proc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert forking._count_threads() == threading.active_count()


def memory_routine(name: str, calls: list[str], **options: Any) -> Routine:
    function = lambda: calls.append(name)  # noqa: E731
    return Routine(function=function, name=name.replace(" ", "_"), scope="process", **options)


@pytest.mark.usefixtures("declared")
def test_process_routines_run_once_in_their_order() -> None:
    calls: list[str] = []
    routines = [memory_routine(name, calls) for name in ("b", "a", "c")]
    assert not in_memory.has_run(routines[0])
    in_memory.run(routines[:2])
    in_memory.run(routines)
    assert calls == ["b", "a", "c"]
    assert all(map(in_memory.has_run, routines))


@pytest.mark.usefixtures("declared")
def test_process_routines_run_once_in_concurrent_threads() -> None:
    calls: list[str] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert go_on.wait(30)
        calls.append("slow")

    routines = [Routine(function=slow, name="slow", scope="process")]
    threads = [threading.Thread(target=in_memory.run, args=[routines]) for _ in range(3)]
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
        memory_routine("next", calls),
    ]
    with pytest.raises(LookupError) as failure:
        in_memory.run(routines)
    assert failure.value.__notes__ == ["Raised by the routine flaky (process scope)."]
    assert calls == ["flaky"]
    in_memory.run(routines)
    assert calls == ["flaky", "flaky", "next"]
