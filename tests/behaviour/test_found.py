"""What is done without a call of its body is shown as that everywhere, and never with a time."""

import logging
import re
from typing import Any

import pytest
from django.test import Client

from once import Routine
from tests.behaviour.command import Answer, reset
from tests.behaviour.test_admin import LIST, decide, page, staff, text
from tests.behaviour.test_events import told
from tests.support import effects, last, run, seed

__all__ = ["staff"]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "sqlite"]),
    pytest.mark.urls("tests.urls"),
]

#: A length of time, as every page and line shows it.
TIME = re.compile(r"\d\.\d{3} ?s")


def found(using: str, **options: Any) -> Routine:
    return seed(using, done_if=lambda: True, **options)


@pytest.fixture(params=["found", "fake"])
def trigger(request: pytest.FixtureRequest, using: str, declared: list[Routine]) -> str:
    """Each way to be done without a call of the body, of a routine that is done in it."""
    declared.append(found(using) if request.param == "found" else seed(using))
    if request.param == "found":
        run(declared[0])
    else:
        run(declared[0], trigger="fake", user="ada", reason="by hand.")
    assert effects(using) == []
    return str(request.param)


WORDS = {"found": r"found done on \S+", "fake": r"faked by ada: by hand"}


def test_run_says_that_it_was_found(using: str, declared: list[Routine]) -> None:
    declared.append(found(using))
    answer = Answer("run")
    assert answer.out.splitlines()[-1] == "  shop.seed... found done"
    assert answer.code == 0


def test_run_json_says_that_it_was_recorded(using: str, declared: list[Routine]) -> None:
    declared.append(found(using))
    (row,) = Answer("run", "--json").json["routines"]
    assert (row["outcome"], row["trigger"], row["duration_seconds"]) == ("recorded", "found", None)
    assert (row["attempts"], row["state"]) == (1, "completed")


def test_fake_prints_no_time(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    assert "  shop.seed... OK\n" in Answer("run", "--fake", "shop.seed").out


def test_status_says_so(trigger: str) -> None:
    out = Answer("status").out
    assert re.search(rf"\[X\] shop\.seed  v1  completed  20[^,]*  {WORDS[trigger]}", out)
    assert not TIME.search(out)


def test_status_json_says_so(trigger: str) -> None:
    (row,) = Answer("status", "--json").json["routines"]
    decided = ("ada", "by hand.") if trigger == "fake" else (None, None)
    assert (row["trigger"], row["duration_seconds"]) == (trigger, None)
    assert (row["user"], row["reason"]) == decided


def test_status_of_what_left_the_code_says_so(
    using: str, trigger: str, declared: list[Routine]
) -> None:
    declared[:] = [seed(using, "shop.new")]
    assert re.search(rf"unknown  20[^,]*  {WORDS[trigger]}", Answer("status").out)


def test_status_json_of_a_reset_has_no_time(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    run(declared[0])
    reset("shop.seed", "--reason", "wrong prices")
    (row,) = Answer("status", "--json").json["routines"]
    assert (row["trigger"], row["reason"], row["duration_seconds"]) == (
        "reset",
        "wrong prices",
        None,
    )


def test_done_already_says_so(trigger: str) -> None:
    out = Answer("run", "shop.seed").out
    assert re.search(rf"shop\.seed is done already: 20[^,]*, {WORDS[trigger]}\. To have it", out)


def test_history_says_so(trigger: str) -> None:
    _, line, *_ = Answer("history", "shop.seed").out.splitlines()
    by = {"found": "done_if", "fake": "ada"}[trigger]
    assert re.search(rf"^   1  {trigger} +v1  20.*  on \S+ \(pid \d+\)  by {by}$", line)
    assert not TIME.search(line)
    (attempt,) = Answer("history", "shop.seed", "--json").json["routines"][0]["attempts"]
    assert attempt["trigger"] == trigger


def test_admin_says_so(using: str, trigger: str, staff: Client) -> None:
    listed, own = text(staff.get(LIST)), page(staff, "shop.seed", using)
    for shown in (listed, own):
        assert re.search(rf"completed {WORDS[trigger]}", shown)
        assert not TIME.search(shown)
    shown = {"found": "1 found done 1 done_if", "fake": "1 fake 1 ada"}[trigger]
    assert shown in own
    asked = text(decide(staff, "reset", "shop.seed", using=using))
    assert re.search(rf"Its function was not called: {WORDS[trigger]}\.* Now it will be\.", asked)


def test_admin_shows_it_among_all_attempts(using: str, trigger: str, staff: Client) -> None:
    shown = text(staff.get(f"/admin/once/attempt/?database={using}"))
    label = {"found": "found done", "fake": "fake"}[trigger]
    assert f"shop.seed1succeeded{label}" in shown
    own = text(staff.get(f"/admin/once/attempt/{last(using).pk}/change/?database={using}"))
    assert not TIME.search(own)


@pytest.mark.parametrize("act", ["found", "fake"])
def test_log_says_so(using: str, act: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "once")
    run(found(using), trigger="fake" if act == "fake" else "command")
    _, finished = told(caplog)
    assert (finished.event, finished.trigger, finished.state) == ("finished", act, "succeeded")
    assert not hasattr(finished, "seconds")
