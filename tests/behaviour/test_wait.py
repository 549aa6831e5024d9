"""``once wait``: what it does, prints and ends with."""

import os
from typing import Any

import pytest

from once import Routine, signals
from once.databases import database
from tests.behaviour.command import Answer, failing, held
from tests.support import begin, effects, receiving, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def test_wait_returns_at_once_where_everything_is_done(using: str, declared: list[Routine]) -> None:
    declared += [seed(using), seed(using, "by_hand", startup=False)]
    run(seed(using))
    answer = Answer("wait")
    assert (answer.code, answer.out) == (0, "")
    assert Answer("wait", "by_hand", "--timeout", "0").code == 4


def test_wait_without_routines_returns_at_once() -> None:
    assert Answer("wait", "--timeout", "0").code == 0


def test_wait_gives_up_and_runs_nothing(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b")]
    answer = Answer("wait", "--timeout", "0.1")
    assert answer.code == 4
    assert "a is pending, and 1 more" in answer.message
    assert effects(using) == []


def test_wait_names_who_runs_it(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b")]
    with database(using).lock("b", 15.0) as lock:
        take(lock)
        attempt = begin(seed(using, "b"))
        answer = Answer("wait", "--timeout", "0")
    assert f"b is running on {attempt.host} (pid {os.getpid()}), and 1 more" in answer.message


def test_wait_ends_when_another_process_has_done_it(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    reasons: list[str] = []

    def complete(reason: str, **kwargs: Any) -> None:
        reasons.append(reason)
        run(seed(using))

    with receiving(signals.waiting, complete):
        answer = Answer("wait")
    assert answer.code == 0
    assert reasons == ["shop.seed is pending"]
    assert effects(using) == ["shop.seed"]


def test_wait_ends_at_once_where_one_is_held(using: str, declared: list[Routine]) -> None:
    declared += [seed(using), held(using)]
    answer = Answer("wait")
    assert answer.code == 5
    assert answer.message.startswith("shop.held: Held, since retry=False")


def test_wait_does_not_end_where_what_no_server_runs_is_held(
    using: str, declared: list[Routine]
) -> None:
    declared += [seed(using), failing(using, retry=False, startup=False)]
    run(declared[1])
    answer = Answer("wait", "--timeout", "0.1")
    assert answer.code == 4
    assert "shop.seed is pending" in answer.message
    assert Answer("wait", "shop.bad").code == 5
