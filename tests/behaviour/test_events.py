"""When signals are sent and what is logged then, by the real runner."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections

from once import Routine, signals
from once.cli import options
from once.models import Attempt, State
from once.record import recorder
from once.routines.registry import Registry
from once.startup import serve
from once.status import readiness
from tests.behaviour.command import Answer
from tests.support import begin, receiving, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "once")


def told(caplog: pytest.LogCaptureFixture) -> list[SimpleNamespace]:
    ours = [record for record in caplog.records if record.name == "once"]
    return [SimpleNamespace(**record.__dict__["once"]) for record in ours]


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.event for one in told(caplog)]


def test_takeover_is_told_before_the_start_of_the_successor(
    using: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[object, ...]] = []

    def lost(sender: Routine, attempt: Attempt, successor: Attempt, **kwargs: Any) -> None:
        is_inside = connections[using].in_atomic_block
        heard.append((sender, attempt.number, attempt.state, successor.number, is_inside))
        raise LookupError

    routine = seed(using)
    begin(routine)
    begin(routine)
    with receiving(signals.attempt_lost, lost):
        run(routine)
    assert heard == [(routine, 1, State.LOST, 3, False), (routine, 2, State.LOST, 3, False)]
    assert events(caplog) == ["took_over", "took_over", "started", "finished"]
    assert (told(caplog)[0].lost, told(caplog)[0].attempt) == (1, 3)


def test_predecessor_that_ended_is_not_taken_over(
    using: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    routine = seed(using)
    first = begin(routine)
    close = recorder.close

    def end_before(attempt: Attempt, *args: Any, **kwargs: Any) -> State:
        if attempt == first:
            close(first, State.FAILED)
        return close(attempt, *args, **kwargs)

    monkeypatch.setattr(recorder, "close", end_before)
    run(routine)
    assert events(caplog) == ["started", "finished"]


def test_held_put_off_and_skipped_are_told(using: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise LookupError

    routines = [
        seed(using, "failing", function=fail),
        seed(using, "behind", after=["failing"]),
        seed(using, "held", retry=False, function=fail),
    ]
    run(*routines, keep_going=True)
    caplog.clear()
    heard: list[object] = []

    def left(sender: Routine, result: Any, **kwargs: Any) -> None:
        heard.append((sender.name, result.reason == "held", result.retry_in > 0))

    with receiving(signals.skipped, left):
        run(*routines, keep_going=True, respects_backoff=True)
    assert heard == [
        ("failing", False, True),
        ("behind", False, False),
        ("held", True, False),
    ]
    put_off, skipped, held = told(caplog)
    assert (put_off.event, put_off.routine, 0 < put_off.retry_in <= 30) == (
        "put_off",
        "failing",
        True,
    )
    assert (skipped.event, skipped.message) == (
        "skipped",
        "Not tried, since failing must be done before.",
    )
    assert (held.event, held.routine) == ("held", "held")
    assert held.message.startswith("Held, since retry=False")


@pytest.mark.parametrize("act", ["fake", "reset"])
def test_decision_is_told_with_who_and_why(
    using: str, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    routine = seed(using)
    if act == "reset":
        run(routine)
        caplog.clear()
    run(routine, trigger=act, even_done=True, user="ann", reason="wrong prices")
    started, finished = told(caplog)
    assert (started.event, started.trigger, started.user, started.reason) == (
        "started",
        act,
        "ann",
        "wrong prices",
    )
    assert (finished.event, finished.trigger, finished.state) == ("finished", act, "succeeded")


def test_forgotten_record_is_told_with_who_and_how_much(
    using: str, declared: list[Routine], caplog: pytest.LogCaptureFixture
) -> None:
    run(seed(using, "shop.gone"))
    caplog.clear()
    assert Answer("forget", "--noinput", "shop.gone").code == 0
    [forgotten] = told(caplog)
    assert (forgotten.event, forgotten.routine, forgotten.database, forgotten.user) == (
        "forgotten",
        "shop.gone",
        using,
        options.user(),
    )
    assert forgotten.message == "removed 1 anchors, 1 attempts, 1 completions."


def test_ready_is_told_once(
    using: str, declared: list[Routine], caplog: pytest.LogCaptureFixture
) -> None:
    declared.append(seed(using))
    assert not readiness.is_ready()
    assert events(caplog) == []
    run(*declared)
    caplog.clear()
    assert readiness.is_ready()
    assert readiness.is_ready()
    assert events(caplog) == ["ready"]
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_ready_is_no_second_line_of_a_server_whose_start_was_complete(
    using: str, declared: list[Routine], caplog: pytest.LogCaptureFixture
) -> None:
    declared.append(seed(using))
    serve.begin(Registry(declared), "gunicorn")
    caplog.set_level(logging.INFO, "once")
    caplog.clear()
    assert readiness.is_ready()
    assert events(caplog) == []


def test_start_of_a_server_ends_with_a_summary(
    using: str, caplog: pytest.LogCaptureFixture
) -> None:
    routines = [seed(using, "a"), seed(using, "b")]
    run(routines[0])
    caplog.clear()
    serve.begin(Registry(routines), "gunicorn")
    summary = told(caplog)[-1]
    assert (summary.event, summary.by, summary.total, summary.ran, summary.waited) == (
        "startup_complete",
        "gunicorn",
        2,
        1,
        0,
    )
    assert 0 < summary.seconds < 60


def test_throttle_is_told_once_after_the_first_second(
    using: str, caplog: pytest.LogCaptureFixture
) -> None:
    routine = seed(using)
    attempt = begin(routine)
    for reason, waited in [("a says 1 s", 0.5), *[("a says 2 s", 1.5), ("b says 1 s", 2.5)] * 3]:
        signals.throttled.send(routine, attempt=attempt, reason=reason, waited=waited)
    shown = [record for record in caplog.records if record.levelno == logging.INFO]
    assert [record.getMessage().partition("attempt=")[2] for record in shown] == [
        '1 seconds=1.500 reason="a says 2 s"',
        '1 seconds=2.500 reason="b says 1 s"',
    ]
    assert events(caplog) == ["throttled"] * 7
