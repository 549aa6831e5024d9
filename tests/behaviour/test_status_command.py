"""``once status``: what it does, prints and ends with."""

import getpass
import os
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models import F

from once import Routine, content
from once.databases import database
from once.models import Attempt, Completion, State
from once.record import history, recorder
from tests.behaviour.command import KEYS, Answer, failing, failing_at, held, reset
from tests.support import begin, rows, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def test_status_json_has_the_keys_of_the_contract(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    answer = Answer("status", "--json")
    shown = answer.json
    assert list(shown) == ["schema", "done", "counts", "unapplied", "unread", "routines"]
    assert (shown["schema"], shown["done"], shown["counts"]) == (1, False, {"pending": 1})
    (row,) = shown["routines"]
    assert list(row) == KEYS
    assert (row["name"], row["version"], row["state"]) == ("shop.seed", 1, "pending")
    assert (row["recorded_version"], row["attempts"], row["started_at"]) == (None, 0, None)
    assert answer.err == ""


def test_status_shows_how_every_routine_stands(using: str, declared: list[Routine]) -> None:
    in_memory = Routine(function=lambda: None, name="in_memory", scope="process")
    declared += [in_memory, seed(using, "done"), failing(using, "bad"), seed(using, "open")]
    declared += [seed(using, "old"), seed(using, "again", version=2)]
    run(seed(using, "done"))
    run(seed(using, "old", version=2))
    run(seed(using, "again", version=1))
    run(declared[2])
    Completion.objects.using(using).create(routine="elsewhere", version=4)
    Completion.objects.using(using).create(routine="once.migrate", version=1)
    shown = Answer("status", "--json").json
    states = {row["name"]: row["state"] for row in shown["routines"]}
    assert states == {
        "in_memory": "pending",
        "done": "completed",
        "bad": "failed",
        "open": "pending",
        "old": "superseded",
        "again": "pending",
        "elsewhere": "unknown",
    }
    answer = Answer("status")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].split()[:5] == ["[", "]", "in_memory", "v1", "pending"]
    assert lines[1].split()[:4] == ["[X]", "done", "v1", "completed"]
    assert lines[2].split()[:5] == ["[", "]", "bad", "v1", "failed"]
    assert lines[3] == "      LookupError: no such currency"
    assert "(v1 is recorded)" in lines[6]
    assert lines[7].split()[2:5] == ["elsewhere", "v4", "unknown"]


def test_status_of_names_shows_those(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b")]
    Completion.objects.using(using).create(routine="elsewhere", version=4)
    shown = Answer("status", "b", "else*", "--json").json
    assert [row["name"] for row in shown["routines"]] == ["b", "elsewhere"]


def test_status_without_routines_says_where_they_go() -> None:
    assert Answer("status").out == "No routines. Declare them in the routines.py of an app.\n"


def test_check_is_0_where_everything_is_done_else_3(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    answer = Answer("status", "--check")
    assert (answer.code, answer.message) == (
        3,
        "Not done: shop.seed (pending). Next: `manage.py once run`.",
    )
    run(seed(using))
    assert Answer("status", "--check").code == 0


def test_status_of_a_running_routine_says_who_and_since_when(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    with database(using).lock("shop.seed", 15.0) as lock:
        take(lock)
        begin(seed(using))
        answer = Answer("status")
        assert "running  since 20" in answer.out
        assert f"(pid {os.getpid()})" in answer.out


def test_status_of_an_abandoned_attempt_says_who_takes_over(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    begin(seed(using))
    answer = Answer("status")
    assert "pending" in answer.out
    assert "takes over." in answer.out


@pytest.mark.parametrize(
    ("state", "ended"),
    [(State.INTERRUPTED, "was interrupted"), (State.LOST, "died, or was cut off")],
)
def test_status_of_an_attempt_that_ended_early_says_how(
    state: State, ended: str, using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    attempt = begin(seed(using))
    recorder.close(attempt, state, "")
    assert (
        f"Attempt 1 on {attempt.host} (pid {attempt.pid}) {ended}. The next" in Answer("status").out
    )
    reset("shop.seed")
    Answer("run")
    reset("shop.seed")
    assert Answer("status").out.count("\n") == 1


def test_status_of_a_routine_with_history_counts_its_attempts(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    for _ in range(2):
        recorder.close(begin(seed(using)), State.FAILED)
    run(seed(using))
    assert "(3 attempts)" in Answer("status").out


def test_status_of_a_database_that_cannot_be_read_fails_in_one_line(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(using: str) -> bool:
        raise OperationalError("no route to host")

    declared.append(seed("default"))
    monkeypatch.setattr(history, "is_installed", refuse)
    answer = Answer("status")
    assert (answer.code, answer.message) == (
        4,
        "A database cannot be used: OperationalError: no route to host. `manage.py once doctor` "
        "says what to do.",
    )


def test_status_shows_the_progress_of_what_is_not_done(using: str, declared: list[Routine]) -> None:
    declared.append(failing_at(using, 4))
    run(declared[0])
    line = Answer("status").out.splitlines()[0]
    assert line.startswith("[ ] shop.fill  v1  failed  20")
    assert "  batched  2 of 5 (40%), " in line
    (row,) = Answer("status", "--json").json["routines"]
    assert (row["kind"], row["processed"], row["total"]) == ("batched", 2, 5)
    assert row["rate"] > 0
    assert row["seconds_left"] is None  # nobody is at it
    run(failing_at(using, 99))
    (row,) = Answer("status", "--json").json["routines"]
    assert (row["state"], row["processed"], row["total"]) == ("completed", 5, 5)
    assert (row["rate"] > 0, row["seconds_left"]) == (True, None)


def test_status_shows_the_progress_of_what_runs_and_the_time_left(
    using: str, declared: list[Routine]
) -> None:
    routine = failing_at(using, 4)
    declared.append(routine)
    run(routine)
    with database(using).lock(routine.name, 15.0) as lock:
        take(lock)
        attempt = begin(routine)
        recorder.resume(attempt, history.progress(attempt))
        recorder.advance(attempt, attempt.cursor, "further", 2)
        # Two items of its own in 100 s, so that the last one takes another 50 s.
        mine = Attempt.objects.using(using).filter(pk=attempt.pk)
        mine.update(started_at=F("started_at") - timedelta(seconds=100))
        answer, shown = Answer("status"), Answer("status", "--json").json
        alone = Answer("status", routine.name, "-v2")
    (row,) = shown["routines"]
    assert (row["state"], row["processed"], row["total"]) == ("running", 4, 5)
    assert row["elapsed_seconds"] == pytest.approx(100, abs=20)
    assert re.search(r"Runs: +on \S+ \(pid \d+\) for 2 min", alone.out)
    assert row["rate"] == pytest.approx(0.02, rel=0.2)
    assert row["seconds_left"] == pytest.approx(50, rel=0.2)
    assert re.search(r"running  since .*  4 of 5 \(80%\), [\d,]+/s, \d+s left", answer.out)


def described(batch: list[int]) -> None:
    """Fill what
    is empty.

    Further words.
    """


def test_verbose_status_tells_what_the_code_says_of_a_routine(
    using: str, declared: list[Routine]
) -> None:
    def slow(run: object) -> float:
        return 0.0

    first = seed(using, "shop.first")
    options: dict[str, Any] = {"after": [first], "rest": 0.5, "throttle": slow}
    fill = seed(using, "shop.fill", function=described, over=lambda: [1], **options)
    declared += [first, fill]
    Answer("set", "shop.fill", "batch_size=7")
    line = described.__code__.co_firstlineno
    user = getpass.getuser()
    facts = [
        "Description: Fill what is empty.",
        f"Source:      {__name__}, line {line}",
        "After:       shop.first",
        f"Pace:        batch_size=7 (set by {user}), rest=0.5 (in the code)",
        "Throttle:    slow",
    ]
    shown = Answer("status", "shop.fill", "-v", "2").out
    assert [each.strip() for each in shown.splitlines()[-5:]] == facts
    assert "Further" not in shown
    assert "Source:" not in Answer("status", "shop.fill").out


def test_status_of_what_is_not_batched_shows_no_progress(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    run(declared[0])
    (row,) = Answer("status", "--json").json["routines"]
    shown = [row[key] for key in ("processed", "total", "rate", "seconds_left", "retry_at")]
    assert shown == [None] * 5


def test_status_shows_kind_and_scope(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RELEASE", "2024.1")
    declared += [
        Routine(function=lambda: None, name="in_memory", scope="process"),
        failing_at(using, 4, "fill"),
        seed(using, "send", atomic=False, scope="release"),
        seed(using, "load", scope=content("support.py")),
    ]
    shown = Answer("status", "--json").json["routines"]
    assert [(row["name"], row["kind"], row["scope"]) for row in shown] == [
        ("in_memory", "process", "process"),
        ("fill", "batched", "database"),
        ("send", "external", "release"),
        ("load", "atomic", "content('support.py')"),
    ]


def test_status_of_a_held_routine_says_why_and_what_to_do(
    using: str, declared: list[Routine]
) -> None:
    declared.append(held(using))
    answer = Answer("status")
    state, error, advice = answer.out.splitlines()
    assert re.fullmatch(
        rf"\[ \] shop.held  v1  held  20.* \(pid {os.getpid()}\).*  external", state
    )
    assert error == "      LookupError: no such currency"
    assert f"(pid {os.getpid()}) failed: LookupError: no such currency. Held," in advice
    assert "`manage.py once run --fake shop.held` records it as done" in advice
    assert Answer("status", "--json").json["counts"] == {"held": 1}


def test_status_of_a_routine_without_retry_whose_process_died_is_held(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_LIVENESS_TIMEOUT", "1")  # for so long, `wait` thinks that it may live
    declared.append(seed(using, retry=False))
    begin(declared[0])
    answer = Answer("status", "--check")
    assert answer.code == 5
    assert f"(pid {os.getpid()}) ended without a word. Held, since retry=False" in answer.out
    assert Answer("wait").code == 5


def test_status_shows_the_whole_traceback_where_asked(using: str, declared: list[Routine]) -> None:
    declared.append(failing(using))
    run(declared[0])
    assert "Traceback" not in Answer("status").out
    answer = Answer("status", "-v2")
    assert "      Traceback (most recent call last):\n" in answer.out
    assert answer.out.endswith("      LookupError: no such currency\n")


@pytest.mark.postgresql
def test_error_of_a_database_is_shown_by_its_first_line_everywhere(
    using: str, declared: list[Routine], caplog: pytest.LogCaptureFixture
) -> None:
    declared.append(seed(using, function=lambda: rows(using, "SELECT nme FROM shop_effect")))
    line = r"\w+Error: .*column\W+nme.*"  # below it, PostgreSQL has a caret
    ran = Answer("run")
    assert re.fullmatch(
        rf"shop\.seed failed\. {line} Nothing of its transaction was committed\. .*", ran.message
    )
    shown = Answer("status").out.splitlines()
    assert len(shown) == 2
    assert re.fullmatch(rf"      {line}", shown[1])
    assert re.search(rf'event=finished .* message="{line}"', caplog.messages[-1])
    assert ("LINE 1" in Answer("status", "-v2").out) is (using == "default")


def test_status_of_a_version_that_was_not_tried_is_pending(
    using: str, declared: list[Routine]
) -> None:
    run(failing(using))
    declared.append(failing(using, version=2))
    (row,) = Answer("status", "--json").json["routines"]
    assert (row["state"], row["error"]) == ("pending", None)


def test_status_does_not_date_a_failure_by_an_earlier_completion(
    using: str, declared: list[Routine]
) -> None:
    run(seed(using, "shop.bad"))
    Completion.objects.using(using).update(completed_at=datetime(2001, 6, 15, tzinfo=UTC))
    declared.append(failing(using, version=2))
    run(declared[0])
    line = Answer("status").out.splitlines()[0]
    assert line.startswith("[ ] shop.bad  v2  failed  ")
    assert "2001-06" not in line


def test_check_is_5_where_one_is_held(using: str, declared: list[Routine]) -> None:
    declared += [held(using), seed(using)]
    answer = Answer("status", "--check")
    assert answer.code == 5
    assert answer.message == (
        "Not done: shop.held (held), shop.seed (pending). Next: `manage.py once run`, once a "
        "person has decided about what is held or paused."
    )


def test_status_says_when_servers_and_workers_try_again(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    declared.append(failing(using))
    run(declared[0])
    assert "  (no server or worker tries again before 20" in Answer("status").out
    (row,) = Answer("status", "--json").json["routines"]
    assert row["retry_at"] > row["started_at"]
    Answer("pause", declared[0].name)
    assert "tries again" not in Answer("status").out
