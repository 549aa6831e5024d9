"""``once work``: what it runs, when it looks again, what it logs and how it ends."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings

from once import Routine
from once.databases import database
from once.engine import executor, shutdown
from once.results import Result
from tests.behaviour.command import Answer, failing, reset
from tests.support import attempts, effects, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


class Looks:
    """Ends the command after some looks, and does something before each of the others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pauses: list[float] = []
        self.between: list[Callable[[], Any]] = []
        monkeypatch.setattr("once.cli.work.time.sleep", self._sleep)
        monkeypatch.setattr("once.cli.work.random.uniform", lambda least, most: most)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if not self.between:
            raise shutdown.Signalled(signal.SIGTERM)
        self.between.pop(0)()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Looks:
    caplog.set_level("INFO", "once")
    return Looks(monkeypatch)


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    records = [getattr(record, "once", {}) for record in caplog.records]
    return [each for each in records if each.get("event") == event]


def test_work_runs_what_is_of_its_role_and_ends_well(
    using: str, declared: list[Routine], looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    declared += [seed(using, "a"), seed(using, "b", role="worker", startup=False)]
    declared += [seed(using, "c", role="web")]
    answer = Answer("work")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert effects(using) == ["a", "b"]
    assert [each["role"] for each in told(caplog, "work_began")] == ["worker"]
    assert [each["message"] for each in told(caplog, "work_ended")] == ["Ended by SIGTERM."]
    assert not told(caplog, "work_left")


@override_settings(ONCE_ROLE="web")
def test_work_has_the_role_of_the_setting(
    using: str, declared: list[Routine], looks: Looks
) -> None:
    declared += [seed(using, "b", role="worker"), seed(using, "c", role="web")]
    assert Answer("work").code == 0
    assert effects(using) == ["c"]


def test_work_looks_again_more_and_more_rarely_until_there_is_something(
    using: str, declared: list[Routine], looks: Looks
) -> None:
    declared.append(seed(using))
    run(*declared)
    looks.between = [int] * 4 + [lambda: reset("shop.seed"), int]
    assert Answer("work").code == 0
    assert [state for *_, state in attempts(using)] == ["succeeded"] * 3
    assert looks.pauses == [1.0, 2.0, 4.0, 5.0, 5.0, 0.5, 1.0]


def test_work_looks_soon_again_where_it_has_run_something(
    using: str, declared: list[Routine], looks: Looks
) -> None:
    declared.append(seed(using))
    looks.between = [int, int]
    Answer("work")
    assert looks.pauses == [0.5, 1.0, 2.0]


@override_settings(ONCE_RETRY_DELAY=600)
def test_work_tries_what_failed_no_sooner_than_starting_servers_and_goes_on_with_others(
    using: str, declared: list[Routine], looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    declared += [failing(using), seed(using, "z")]
    looks.between = [int] * 3
    assert Answer("work").code == 0
    assert attempts(using) == [("shop.bad", 1, "failed"), ("z", 1, "succeeded")]
    [left] = told(caplog, "work_left")
    assert left["routine"] == "shop.bad"
    assert "Starting servers try again in 600 s" in left["message"]


@override_settings(ONCE_RETRY_DELAY=0)
def test_work_tries_again_what_failed_once_its_delay_has_passed(
    using: str, declared: list[Routine], looks: Looks
) -> None:
    declared.append(failing(using))
    looks.between = [int] * 2
    Answer("work")
    assert len(attempts(using)) == 3
    assert looks.pauses == [1.0, 2.0, 4.0]


def test_work_waits_for_no_other_process_and_takes_the_next_routine(
    declared: list[Routine], looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    declared += [seed("default", "a"), seed("default", "b")]
    lock = database("default").lock("a", 15)
    with lock:
        take(lock)
        looks.between = [int, lock.release]
        assert Answer("work").code == 0
    assert sorted(name for name, *_ in attempts("default")) == ["a", "b"]
    assert [each["routine"] for each in told(caplog, "work_left")] == ["a"]
    assert "a is run by " in told(caplog, "work_left")[0]["message"]


def test_work_survives_a_database_that_is_away_and_says_so_once(
    using: str,
    declared: list[Routine],
    looks: Looks,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_all, errors = executor.run, [OperationalError("the server is away")] * 3

    def away(*args: Any) -> list[Result]:
        if errors:
            raise errors.pop()
        return run_all(*args)

    monkeypatch.setattr(executor, "run", away)
    declared.append(seed(using))
    looks.between = [int] * 3
    assert Answer("work").code == 0
    assert effects(using) == ["shop.seed"]
    [hindered] = told(caplog, "work_hindered")
    assert hindered["reason"] == "OperationalError: the server is away"


@override_settings(ONCE_ROLE="two words")
def test_work_with_an_invalid_role_is_a_usage_error(looks: Looks) -> None:
    answer = Answer("work")
    assert answer.code == 2
    assert "ONCE_ROLE must be a word" in answer.message


def test_signal_in_a_body_rolls_it_back_and_ends_well(
    using: str, declared: list[Routine], looks: Looks
) -> None:
    def told_to_stop() -> None:
        signal.raise_signal(signal.SIGTERM)

    declared.append(seed(using, function=told_to_stop))
    assert Answer("work").code == 0
    assert attempts(using) == [("shop.seed", 1, "interrupted")]
    assert not looks.pauses
