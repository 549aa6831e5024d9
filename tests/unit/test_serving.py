"""What a starting server does with the results of a run, when, and in which thread."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.test import override_settings
from gunicorn.arbiter import Arbiter

from once import Routine, conf
from once.engine import executor
from once.engine.options import RunOptions
from once.exceptions import DatabaseUnavailable, RoutineFailed
from once.results import Outcome, Reason, Result
from once.routines import registry
from once.routines.registry import Registry
from once.startup import forking, launch, serve

SEED = Routine(function=lambda: None, name="shop.seed")
FILL = Routine(function=lambda: None, name="shop.fill")
DONE = Result(routine=SEED, outcome=Outcome.RAN)
LEFT = Result(routine=SEED, outcome=Outcome.SKIPPED, message="Blocked.")
ELSEWHERE = Result(
    routine=FILL,
    outcome=Outcome.SKIPPED,
    message="Left to processes with the role 'worker'.",
    reason=Reason.OTHER_ROLE,
)
OTHER_LEFT = Result(routine=FILL, outcome=Outcome.SKIPPED, message="Not tried.", retry_in=7.0)
FAILED = Result(
    routine=FILL,
    outcome=Outcome.FAILED,
    message="ValueError: no such brand",
    reason=Reason.FAILED,
    error=ValueError("no such brand"),
)
FAILED_BEFORE = Result(
    routine=SEED,
    outcome=Outcome.SKIPPED,
    message="Attempt 1 failed. Starting servers try again in 30 s.",
    reason=Reason.FAILED,
    retry_in=30.0,
)
FOUND = Registry([SEED, FILL, Routine(function=lambda: None, name="shop.by_hand", startup=False)])


class Runs:
    """Stands for the runner: each call gives the next of the answers, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[Result] | BaseException | Callable[[], list[Result]]] = [[DONE]]
        self.calls: list[tuple[list[str], Registry, RunOptions]] = []
        self.threads: list[threading.Thread] = []
        self.pauses: list[float] = []
        #: What was to be called where threads live.
        self.later: list[Callable[[], None]] = []
        monkeypatch.setattr(executor, "run", self._run)
        monkeypatch.setattr(registry.site, "was_complete", False)
        monkeypatch.setattr(forking, "once_serving", self.later.append)
        monkeypatch.setattr("once.startup.serve.time", SimpleNamespace(sleep=self.pauses.append))

    def _run(
        self, routines: list[Routine], registry: Registry, options: RunOptions
    ) -> list[Result]:
        self.threads.append(threading.current_thread())
        self.calls.append(([routine.name for routine in routines], registry, options))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer

    def go_on(self) -> None:
        """Do what was put off, to its end."""
        [later] = self.later
        before = set(threading.enumerate())
        later()
        for thread in set(threading.enumerate()) - before:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    for name in conf.NAMES:
        monkeypatch.delenv(name, raising=False)
    return Runs(monkeypatch)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, without the values."""
    return [
        record.getMessage().partition(" ")[0].removeprefix("event=") for record in caplog.records
    ]


def test_begin_runs_what_servers_run_as_they_start_and_waits(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    serve.begin(FOUND, "gunicorn")
    names = ["shop.seed", "shop.fill"]
    wanted = RunOptions(trigger="startup", respects_backoff=True, role="")
    assert runs.calls == [(names, FOUND, wanted)]
    assert runs.threads == [threading.current_thread()]
    assert not runs.later
    [line] = caplog.messages
    assert line.startswith("event=startup_complete by=gunicorn total=1 ran=1 waited=0 seconds=")


@pytest.mark.parametrize(
    ("debug", "reloads", "heeds"),
    [(False, "", True), (True, "", False), (False, "true", False)],
)
def test_begin_where_code_is_written_waits_for_no_delay(
    runs: Runs, debug: bool, reloads: str, heeds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_MAIN", reloads)
    with override_settings(DEBUG=debug):
        serve.begin(FOUND, "gunicorn")
    assert [options.respects_backoff for *_, options in runs.calls] == [heeds]


@pytest.mark.parametrize(
    ("by", "given", "role"),
    [
        ("celery worker", None, "worker"),
        ("celery beat", None, "worker"),
        ("celery worker", "", ""),
        ("celery beat", "nightly", "nightly"),
        ("gunicorn", None, ""),
        ("gunicorn", "web", "web"),
    ],
)
def test_role_of_celery_is_worker_unless_the_setting_says_another(
    runs: Runs, by: str, given: str | None, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is not None:
        monkeypatch.setenv("ONCE_ROLE", given)
    serve.begin(FOUND, by)
    runs.later = [lambda: serve.go_on(FOUND, by)]
    runs.go_on()
    assert [options.role for *_, options in runs.calls] == [role] * 2


@pytest.mark.parametrize("startup", ["run", "background"])
def test_what_is_left_to_another_role_is_no_fault_and_is_told_once(
    runs: Runs, startup: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    runs.answers = [[ELSEWHERE], [ELSEWHERE], [ELSEWHERE], [DONE]]
    with override_settings(ONCE_STARTUP=startup):
        serve.begin(FOUND, "gunicorn")
    assert not registry.site.was_complete
    runs.go_on()
    assert events(caplog) == ["startup_incomplete", "startup_complete"]
    assert {record.levelname for record in caplog.records} == {"INFO"}
    told = caplog.messages[0]
    assert "shop.fill: Left to processes with the role 'worker'." in told
    if startup == "run":
        ends = "This server starts all the same; its readiness says no, and the routine is not "
        assert f'{ends}tried here."' in told


def test_what_is_left_to_another_role_is_told_after_faults(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs.answers = [[ELSEWHERE, LEFT]]
    serve.begin(FOUND, "gunicorn")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "shop.seed: Blocked." in record.getMessage()
    assert "it goes on trying" in record.getMessage()


@override_settings(ONCE_STARTUP="background")
def test_begin_in_the_background_runs_beside_the_server_at_once(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    serve.begin(FOUND, "gunicorn")
    assert runs.calls == []
    runs.go_on()
    assert runs.pauses == [0.0]
    assert [(thread.name, thread.daemon) for thread in runs.threads] == [("once startup", True)]
    assert events(caplog) == ["startup_complete"]


@pytest.mark.parametrize("startup", ["run", "background"])
def test_begin_where_threads_stand_still_runs_and_says_so(
    runs: Runs, startup: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forking, "lacks_threads", lambda: True)
    runs.answers = [[LEFT]]
    with override_settings(ONCE_STARTUP=startup):
        serve.begin(FOUND, "gunicorn")
    assert runs.threads == [threading.current_thread()]
    assert not runs.later
    assert events(caplog) == ["no_threads", "startup_incomplete"]
    said = caplog.text.replace('\\"', '"')
    assert ('ONCE_STARTUP="background" does what "run" does' in said) is (startup == "background")
    assert "--enable-threads" in said
    assert "nothing here tries again" in said


def test_begin_beside_an_event_loop_runs_in_its_thread_as_if_there_were_none(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    def running() -> list[Result]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        asyncio.run(asyncio.sleep(0))  # as a body may
        return [DONE]

    async def importing() -> None:
        task = asyncio.current_task()
        serve.begin(FOUND, "gunicorn")
        assert asyncio.current_task() is task
        await asyncio.sleep(0)

    runs.answers = [running]
    asyncio.run(importing())
    assert runs.threads == [threading.current_thread()]
    assert events(caplog) == ["startup_complete"]


def test_begin_in_a_callback_of_an_event_loop_runs_as_if_there_were_none(runs: Runs) -> None:
    loop = asyncio.new_event_loop()
    loop.call_soon(serve.begin, FOUND, "gunicorn")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert runs.threads == [threading.current_thread()]


def test_begin_beside_an_event_loop_raises_what_failed(runs: Runs) -> None:
    async def importing() -> None:
        with pytest.raises(RoutineFailed, match=r"shop\.fill: ValueError"):
            serve.begin(FOUND, "uvicorn")
        await asyncio.sleep(0)

    runs.answers = [[DONE, FAILED]]
    asyncio.run(importing())


def test_failure_stops_the_server_and_names_the_routine(runs: Runs) -> None:
    runs.answers = [[LEFT, FAILED_BEFORE, FAILED]]
    with pytest.raises(RoutineFailed) as failure:
        serve.begin(FOUND, "uvicorn")
    assert str(failure.value) == "shop.fill: ValueError: no such brand"
    assert failure.value.__cause__ is None  # the log has its traceback already
    assert not runs.later


def test_failure_ends_a_process_of_gunicorn_without_a_traceback(runs: Runs) -> None:
    runs.answers = [[FAILED]]
    with pytest.raises(SystemExit) as ended:
        serve.begin(FOUND, "gunicorn")
    assert ended.value.code == Arbiter.APP_LOAD_ERROR


def test_workers_of_gunicorn_end_one_after_the_other_for_a_failure_elsewhere(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because it trips over a second worker that fails before it has ended them all."""
    runs.answers = [[FAILED], [FAILED_BEFORE]]
    for age in (1, 2, 3):
        worker = SimpleNamespace(age=age)
        monkeypatch.setattr(launch, "gunicorns_worker", lambda worker=worker: worker)
        with pytest.raises(SystemExit):
            serve.begin(FOUND, "gunicorn")
    # The first one ran the body.
    assert [pause for pause in runs.pauses if pause] == [2, 3]


def test_failure_elsewhere_that_keeps_the_server_from_starting_is_logged(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    """Because a server's own output may be lost, as in a crash loop with an error log."""
    runs.answers = [[replace(FAILED, error=None, message="Attempt 1 on web-2 (pid 7) failed")]]
    with pytest.raises(RoutineFailed):
        serve.begin(FOUND, "uvicorn")
    assert events(caplog) == ["startup_failed"]
    assert caplog.records[0].levelname == "ERROR"
    assert "Attempt 1 on web-2" in caplog.text


@pytest.mark.parametrize(("respawns", "raises"), [(1, True), (2, False)])
def test_failure_in_a_worker_that_replaces_another_does_not_stop_the_server(
    runs: Runs,
    respawns: int,
    raises: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As uWSGI counts how often it started a worker; other servers are tested as they run."""
    uwsgi = SimpleNamespace(
        worker_id=lambda: 2,
        workers=lambda: [{"respawn_count": 7}, {"respawn_count": respawns}],
        version_info=(2, 0, 30),
        opt={},
    )
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    runs.answers = [[FAILED]]
    with pytest.raises(RoutineFailed) if raises else nullcontext():
        serve.begin(FOUND, "uwsgi")
    assert ("it replaces one of a server that was up" in caplog.text) is not raises
    assert len(runs.later) == (not raises)
    runs.answers = [ImproperlyConfigured("ONCE_RELEASE is not set")]  # any more
    with pytest.raises(ImproperlyConfigured) if raises else nullcontext():
        serve.begin(FOUND, "uwsgi")
    assert ("ONCE_RELEASE is not set" in caplog.text) is not raises


@override_settings(ONCE_STARTUP_FAILURE="log")
def test_failure_that_is_to_be_logged_is_tried_again_beside_the_server(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    runs.answers = [[LEFT, FAILED], [DONE]]
    serve.begin(FOUND, "gunicorn")
    assert "shop.fill: ValueError: no such brand" in caplog.text
    assert "it goes on trying" in caplog.text
    runs.go_on()
    assert runs.pauses == [1.0]
    assert events(caplog) == ["startup_incomplete", "startup_complete"]


@pytest.mark.parametrize(
    "error",
    [OperationalError("refused"), DatabaseUnavailable("refused")],
    ids=["driver", "patience over"],
)
def test_database_out_of_reach_does_not_stop_the_server(
    runs: Runs, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    runs.answers = [error]
    serve.begin(FOUND, "gunicorn")
    assert "refused" in caplog.text
    assert len(runs.later) == 1


def test_other_errors_stop_the_server(runs: Runs) -> None:
    runs.answers = [LookupError("a fault of this package")]
    with pytest.raises(LookupError):
        serve.begin(FOUND, "gunicorn")


def test_who_goes_on_tries_ever_more_rarely_and_not_before_it_may(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    again: list[Any] = [[LEFT]] * 4
    runs.answers = [[LEFT], *again, [LEFT, OTHER_LEFT], LookupError("odd"), [LEFT, OTHER_LEFT]]
    runs.answers += [*again, [DONE]]
    serve.begin(FOUND, "gunicorn")
    runs.go_on()
    assert runs.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 60.0, 60.0]
    # Told where it changes: to the odd error, and from it.
    retries = ["startup_retried"] * 2
    assert events(caplog) == ["startup_incomplete", *retries, "startup_complete"]
    assert [record.exc_info is not None for record in caplog.records].count(True) == 1


@override_settings(ONCE_STARTUP="background")
def test_who_goes_on_warns_once_of_what_nobody_was_told_and_heeds_the_longest_delay(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    runs.answers = [LookupError("odd"), [LEFT, OTHER_LEFT], [DONE]]
    serve.begin(FOUND, "gunicorn")
    runs.go_on()
    assert runs.pauses == [0.0, 1.0, 7.0]
    assert events(caplog) == ["startup_incomplete", "startup_retried", "startup_complete"]
    warned, retried, _ = caplog.records
    assert warned.levelname == "WARNING"
    assert warned.exc_info is not None
    assert "shop.seed: Blocked." in retried.getMessage()


class Worker:
    """Stands for gunicorn's, whose handler of SIGTERM only takes note."""

    def __init__(self) -> None:
        self.alive = True
        self.told: list[int] = []

    def handle_exit(self, number: int, frame: object) -> None:
        self.alive = False
        self.told.append(number)


class UvicornServer:
    """Stands for uvicorn's."""

    def __init__(self) -> None:
        self.should_exit = False
        self.told: list[int] = []

    def handle_exit(self, number: int, frame: object) -> None:
        self.should_exit = True
        self.told.append(number)


Worker.handle_exit.__module__ = "gunicorn.workers.base"
KINDS = pytest.mark.parametrize("kind", [Worker, UvicornServer])
ENDING = (signal.SIGTERM, signal.SIGQUIT)


@pytest.fixture
def worker(kind: type, monkeypatch: pytest.MonkeyPatch) -> Any:
    before = {number: signal.getsignal(number) for number in ENDING}
    worker = kind()
    worker.restarted = []
    for number in ENDING:
        signal.signal(number, worker.handle_exit)
    monkeypatch.setattr(signal, "siginterrupt", lambda *asked: worker.restarted.append(asked))
    yield worker
    for number, handler in before.items():
        signal.signal(number, handler)


@KINDS
@pytest.mark.parametrize("number", ENDING)
def test_server_that_is_told_to_stop_stops_in_a_run_and_is_told_then(
    runs: Runs, worker: Any, number: int
) -> None:
    def told() -> list[Result]:
        os.kill(os.getpid(), number)
        return [DONE]

    runs.answers = [told]
    with pytest.raises(SystemExit) as ended:
        serve.begin(FOUND, "gunicorn")
    assert ended.value.code == 0
    assert worker.told == [number]
    assert signal.getsignal(number) == worker.handle_exit
    restarted = {(signal.SIGTERM, False)} if isinstance(worker, Worker) else set()
    assert set(worker.restarted) == restarted


@KINDS
def test_server_that_was_told_to_stop_runs_nothing(runs: Runs, worker: Any) -> None:
    worker.handle_exit(signal.SIGTERM, None)
    with pytest.raises(SystemExit) as ended:
        serve.begin(FOUND, "gunicorn")
    assert ended.value.code == 0
    assert runs.calls == []


@KINDS
def test_server_runs_what_is_pending_and_gets_its_signals_back(runs: Runs, worker: Any) -> None:
    serve.begin(FOUND, "gunicorn")
    assert len(runs.calls) == 1
    assert not worker.told
    assert signal.getsignal(signal.SIGTERM) == worker.handle_exit


def test_loop_that_heeds_a_signal_later_is_told_after_the_run(runs: Runs) -> None:
    """As gunicorn's own worker for ASGI does: its handler is the loop's."""
    told: list[str] = []
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, told.append, "told")

    def killed() -> list[Result]:
        os.kill(os.getpid(), signal.SIGTERM)
        return [DONE]

    runs.answers = [killed]
    with pytest.raises(SystemExit):
        serve.begin(FOUND, "gunicorn")
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert "told" in told


def test_mod_wsgi_keeps_its_signals(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(process_group="")
    monkeypatch.setitem(sys.modules, "mod_wsgi", module)
    during: list[object] = []

    def look() -> list[Result]:
        during.append(signal.getsignal(signal.SIGTERM))
        return [DONE]

    runs.answers = [look]
    serve.begin(FOUND, "gunicorn")
    assert during == [signal.getsignal(signal.SIGTERM)]
