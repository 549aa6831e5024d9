"""What a starting server does with the results of a run, when, and in which thread."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings

from once import Routine, conf, runner, server, serving
from once.exceptions import DatabaseUnavailable, RoutineFailed
from once.registry import Registry
from once.results import Outcome, Result
from tests.waiting import wait_until

SEED = Routine(function=lambda: None, name="shop.seed")
FILL = Routine(function=lambda: None, name="shop.fill")
DONE = Result(routine=SEED, outcome=Outcome.RAN)
LEFT = Result(routine=SEED, outcome=Outcome.SKIPPED, message="Blocked.")
OTHER_LEFT = Result(routine=FILL, outcome=Outcome.SKIPPED, message="Not tried.", retry_in=7.0)
FAILED = Result(
    routine=FILL,
    outcome=Outcome.FAILED,
    message="ValueError: no such brand",
    has_failed=True,
    error=ValueError("no such brand"),
)
FOUND = Registry([SEED, FILL, Routine(function=lambda: None, name="shop.by_hand", startup=False)])


class Runs:
    """Stands for the runner: each call gives the next of the answers, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[Result] | BaseException | Callable[[], list[Result]]] = [[DONE]]
        self.calls: list[dict[str, Any]] = []
        self.threads: list[threading.Thread] = []
        self.pauses: list[float] = []
        #: What was to be called where threads live.
        self.later: list[Callable[[], None]] = []
        monkeypatch.setattr(runner, "run", self._run)
        monkeypatch.setattr(server, "once_serving", self.later.append)
        monkeypatch.setattr("once.serving.time", SimpleNamespace(sleep=self.pauses.append))

    def _run(self, routines: list[Routine], **options: Any) -> list[Result]:
        self.threads.append(threading.current_thread())
        self.calls.append({"routines": [routine.name for routine in routines], **options})
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
    serving.begin(FOUND)
    names = ["shop.seed", "shop.fill"]
    expected = {"routines": names, "registry": FOUND, "trigger": "startup", "heeds_delay": True}
    assert runs.calls == [expected]
    assert runs.threads == [threading.current_thread()]
    assert not runs.later
    assert events(caplog) == ["startup_complete"]


@override_settings(ONCE_STARTUP="background")
def test_begin_in_the_background_runs_beside_the_server_at_once(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    serving.begin(FOUND)
    assert runs.calls == []
    runs.go_on()
    assert runs.pauses == [0.0]
    assert [(thread.name, thread.daemon) for thread in runs.threads] == [("once startup", True)]
    assert events(caplog) == ["startup_complete"]


@pytest.mark.parametrize("startup", ["run", "background"])
def test_begin_where_threads_stand_still_runs_and_says_so(
    runs: Runs, startup: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "lacks_threads", lambda: True)
    runs.answers = [[LEFT]]
    with override_settings(ONCE_STARTUP=startup):
        serving.begin(FOUND)
    assert runs.threads == [threading.current_thread()]
    assert not runs.later
    assert events(caplog) == ["no_threads", "startup_incomplete"]
    said = caplog.text.replace('\\"', '"')
    assert ('ONCE_STARTUP="background" does what "run" does' in said) is (startup == "background")
    assert "--enable-threads" in said
    assert "nothing here tries again" in said


def test_begin_beside_an_event_loop_runs_in_a_thread_and_waits(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    def lasting() -> list[Result]:
        threading.Event().wait(0.1)
        return [DONE]

    async def importing() -> None:
        serving.begin(FOUND)
        assert not runs.threads[0].is_alive()

    runs.answers = [lasting]
    asyncio.run(importing())
    assert [(thread.name, thread.daemon) for thread in runs.threads] == [("once startup", True)]
    assert events(caplog) == ["startup_complete"]


def test_begin_beside_an_event_loop_raises_what_the_thread_raised(runs: Runs) -> None:
    async def importing() -> None:
        serving.begin(FOUND)

    runs.answers = [[DONE, FAILED]]
    with pytest.raises(RoutineFailed, match=r"shop\.fill: ValueError"):
        asyncio.run(importing())


@override_settings(ONCE_STARTUP_TIMEOUT=0.01)
def test_begin_beside_an_event_loop_says_what_is_slow_and_waits_on(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    ended = []

    def slow() -> list[Result]:
        # Until the other thread has said so.
        asked = threading.Event()
        wait_until(lambda: "startup_slow" in events(caplog) or asked.wait(0.01))
        asked.wait(0.1)  # it waits on meanwhile, or not
        ended.append(True)
        return [DONE]

    async def importing() -> None:
        serving.begin(FOUND)
        assert ended

    runs.answers = [slow]
    asyncio.run(importing())
    assert events(caplog) == ["startup_slow", "startup_complete"]


def test_failure_stops_the_server_and_names_the_routine(runs: Runs) -> None:
    runs.answers = [[LEFT, FAILED]]
    with pytest.raises(RoutineFailed) as failure:
        serving.begin(FOUND)
    assert str(failure.value) == "shop.fill: ValueError: no such brand"
    assert failure.value.__cause__ is FAILED.error
    assert not runs.later


@override_settings(ONCE_STARTUP_FAILURE="log")
def test_failure_that_is_to_be_logged_is_tried_again_beside_the_server(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    runs.answers = [[LEFT, FAILED], [DONE]]
    serving.begin(FOUND)
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
    serving.begin(FOUND)
    assert "refused" in caplog.text
    assert len(runs.later) == 1


def test_other_errors_stop_the_server(runs: Runs) -> None:
    runs.answers = [LookupError("a fault of this package")]
    with pytest.raises(LookupError):
        serving.begin(FOUND)


def test_who_goes_on_tries_ever_more_rarely_and_not_before_it_may(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    again: list[Any] = [[LEFT]] * 4
    runs.answers = [[LEFT], *again, [LEFT, OTHER_LEFT], LookupError("odd"), [LEFT, OTHER_LEFT]]
    runs.answers += [*again, [DONE]]
    serving.begin(FOUND)
    runs.go_on()
    assert runs.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 60.0, 60.0]
    retries = ["startup_retried"] * 11
    assert events(caplog) == ["startup_incomplete", *retries, "startup_complete"]
    assert [record.exc_info is not None for record in caplog.records].count(True) == 1


@override_settings(ONCE_STARTUP="background")
def test_who_goes_on_warns_once_of_what_nobody_was_told_and_heeds_the_longest_delay(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "once")
    runs.answers = [LookupError("odd"), [LEFT, OTHER_LEFT], [DONE]]
    serving.begin(FOUND)
    runs.go_on()
    assert runs.pauses == [0.0, 1.0, 7.0]
    assert events(caplog) == ["startup_incomplete", "startup_retried", "startup_complete"]
    warned, retried, _ = caplog.records
    assert warned.levelname == "WARNING"
    assert warned.exc_info is not None
    assert "shop.seed: Blocked." in retried.getMessage()


class Worker:
    """Stands for gunicorn's, whose handler of SIGTERM only takes note."""

    alive = True

    def handle_exit(self, number: int, frame: object) -> None:
        self.alive = False


Worker.handle_exit.__module__ = "gunicorn.workers.base"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    before = signal.getsignal(signal.SIGTERM)
    worker = Worker()
    signal.signal(signal.SIGTERM, worker.handle_exit)
    monkeypatch.setattr(signal, "siginterrupt", lambda *asked: vars(worker).update(asked=asked))
    yield worker
    signal.signal(signal.SIGTERM, before)


def test_worker_of_gunicorn_that_is_told_to_stop_stops_in_a_run(runs: Runs, worker: Any) -> None:
    def told() -> list[Result]:
        os.kill(os.getpid(), signal.SIGTERM)
        return [DONE]

    runs.answers = [told]
    with pytest.raises(SystemExit) as ended:
        serving.begin(FOUND)
    assert ended.value.code == 0
    assert signal.getsignal(signal.SIGTERM) == worker.handle_exit
    assert worker.asked == (signal.SIGTERM, False)


def test_worker_of_gunicorn_that_was_told_to_stop_runs_nothing(runs: Runs, worker: Any) -> None:
    worker.alive = False
    with pytest.raises(SystemExit) as ended:
        serving.begin(FOUND)
    assert ended.value.code == 0
    assert runs.calls == []


def test_worker_of_gunicorn_runs_what_is_pending(runs: Runs, worker: Any) -> None:
    serving.begin(FOUND)
    assert len(runs.calls) == 1
    assert worker.alive
    assert worker.asked == (signal.SIGTERM, False)


def test_handler_of_somebody_else_is_left_alone(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SimpleNamespace(__module__="mysite", __self__=SimpleNamespace(alive=False))
    monkeypatch.setattr(signal, "getsignal", lambda number: other)
    serving.begin(FOUND)
    assert len(runs.calls) == 1
