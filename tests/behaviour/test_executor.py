"""A pass over routines: order, skips, versions, signals and messages, which know no vendor."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, transaction

from once import Routine, content, signals
from once.databases import database
from once.engine import executor, shutdown
from once.engine.options import RunOptions
from once.exceptions import (
    AttemptLost,
    DatabaseUnavailable,
    InsideRun,
    InsideTransaction,
    TimedOut,
)
from once.models import Attempt, Completion, State
from once.record import history, recorder
from once.record.standing import Record, Standing
from once.results import Outcome, Result
from once.routines.registry import Registry
from tests.shop.models import Effect
from tests.support import (
    attempts,
    begin,
    completions,
    conflict,
    effects,
    lacking_migrations,
    last,
    lost_connection,
    raising,
    receiving,
    run,
    seed,
    take,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def test_second_pass_does_nothing(using: str) -> None:
    run(seed(using))
    (result,) = run(seed(using))
    assert result.outcome is Outcome.ALREADY_DONE
    assert result.is_done
    assert result.attempt is None
    assert effects(using) == ["shop.seed"]


def test_routines_run_in_their_order(using: str) -> None:
    called: list[str] = []
    routines = [
        seed(using, name, after=after, function=partial_named(called.append, name))
        for name, after in [("a", ["c"]), ("b", []), ("c", ["b"])]
    ]
    results = run(*routines)
    assert called == ["b", "c", "a"]
    assert [result.routine.name for result in results] == called


def partial_named(function: Callable[[str], None], name: str) -> Callable[[], None]:
    return lambda: function(name)


def test_record_that_changes_again_and_again_is_waited_for_until_the_deadline(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read under the lock is done, what is read without it is not: each time anew."""
    routine = seed(using)
    recorder.close(begin(routine), State.INTERRUPTED)  # so that there is something to read
    looks: list[Routine] = []

    def next_attempt(routine: Routine) -> history.NextAttempt:
        looks.append(routine)
        done = Record(standing=Standing.DONE)
        return history.NextAttempt(record=done, number=1, key="key", predecessors=())

    monkeypatch.setattr(history, "next_attempt", next_attempt)
    told: list[str] = []

    def note(reason: str, **kwargs: object) -> None:
        told.append(reason)

    with receiving(signals.waiting, note):
        (result,) = run(routine, timeout=1.0)
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "timed_out")
    assert "the record of shop.seed changes again and again" in result.message
    assert told[0] == "the record of shop.seed changes again and again"
    assert len(looks) < 60  # it pauses
    assert attempts(using) == [("shop.seed", 1, "interrupted")]


def test_deadline_skips_and_says_why_for_the_rest(using: str) -> None:
    with database(using).lock("first", 15) as lock:
        take(lock)
        first, second = run(seed(using, "first"), seed(using, "second"), timeout=1.0)
    assert (first.outcome, first.reason) == (Outcome.SKIPPED, "timed_out")
    assert re.match(r"Gave up after [\d.]+ s", first.message)
    assert "first is run by" in first.message
    assert (second.outcome, second.reason) == (Outcome.SKIPPED, None)
    assert second.message == "Not tried, since the deadline passed at first."


def test_long_traceback_keeps_its_end(using: str) -> None:
    run(seed(using, function=raising(LookupError("x" * 20_000 + "end"), using)))
    assert len(last(using).error) == 10_000
    assert last(using).error.endswith("end\n")


def test_pass_stops_after_a_failure_and_says_why(using: str) -> None:
    run(seed(using, "done"))
    bad = seed(using, "bad", function=raising(LookupError(), using))
    results = run(seed(using, "good"), bad, seed(using, "rest"), seed(using, "done"))
    assert [result.outcome for result in results] == [
        Outcome.RAN,
        Outcome.FAILED,
        Outcome.SKIPPED,
        Outcome.ALREADY_DONE,
    ]
    assert results[2].message == "Not tried, since bad failed. Fix that one first."
    assert effects(using) == ["done", "good"]


@pytest.mark.parametrize("place", ["default", "sqlite"])
@pytest.mark.parametrize(
    ("loser", "ran"),
    [("second", ["second", "first", "third"]), ("third", ["second", "third", "first"])],
)
def test_what_the_database_lost_meanwhile_is_done_again(
    using: str, place: str, loser: str, ran: list[str]
) -> None:
    """A failover may lose what this process has read, and is about to build on."""
    first, second = seed(place, "first"), seed(using, "second")
    third = seed(using, "third", after=["first"])
    run(first)
    called: list[str] = []

    def lose(sender: Routine, **kwargs: object) -> None:
        called.append(sender.name)
        if called[-1] == loser and "first" not in called:
            losing("first", place)()

    with receiving(signals.attempt_finished, lose):
        results = run(first, second, third)
    assert called == ran
    assert [result.outcome for result in results] == [Outcome.RAN] * 3
    assert ("first", 1) in completions(place)
    is_claimed = loser == "second" and place == using
    assert (("third", 1, "interrupted") in attempts(using)) is is_claimed


def test_what_the_database_lost_is_not_done_after_the_deadline(using: str) -> None:
    routines = [seed(using, "first"), seed(using, "second")]
    with (
        receiving(signals.attempt_finished, losing("first", using)),
        pytest.raises(TimedOut, match=r"first was done, and is not .* reset it\. Run this again"),
    ):
        run(*routines, timeout=0)
    assert [result.outcome for result in run(*routines)] == [Outcome.RAN, Outcome.ALREADY_DONE]


@pytest.mark.parametrize("problem", [lost_connection, conflict])
def test_answer_after_the_deadline_that_all_is_done_is_waited_for(
    using: str, problem: Callable[[str], OperationalError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body may end after the deadline; how long a run waits says nothing of what is done."""
    read = history.read
    errors: list[OperationalError] = []

    def fail_once(routines: list[Routine], **options: Any) -> dict[str, Record]:
        if errors:
            raise errors.pop()
        return read(routines)

    monkeypatch.setattr(history, "read", fail_once)
    body = partial(errors.append, problem(using))
    [result] = run(seed(using, function=body), timeout=0)
    assert result.outcome is Outcome.RAN
    assert errors == []


def test_file_that_a_body_removes_was_there(using: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.touch()
    [result] = run(seed(using, function=file.unlink, scope=content(file)))
    assert result.outcome is Outcome.RAN


@pytest.mark.parametrize(("retry", "trigger"), [(False, "command"), (True, "call")])
def test_body_that_is_called_at_most_once_is_not_called_again_by_the_same_call(
    using: str, retry: bool, trigger: str
) -> None:
    with (
        receiving(signals.attempt_finished, losing("shop.seed", using)),
        pytest.raises(AttemptLost, match="To call it again, run this again"),
    ):
        run(seed(using, retry=retry), trigger=trigger, timeout=0)
    assert effects(using) == ["shop.seed"]


def test_what_is_lost_again_and_again_ends_the_call(using: str) -> None:
    """A receiver that resets what has run would otherwise have it run for ever."""
    routine = seed(using)
    with (
        receiving(signals.attempt_finished, losing("shop.seed", using)),
        pytest.raises(AttemptLost, match="To call it again, run this again"),
    ):
        run(routine, timeout=30)
    assert effects(using) == ["shop.seed"] * 10


def test_other_database_that_is_out_of_reach_before_a_claim_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routines = [seed("default", "first"), seed("sqlite", "second", after=["first"])]
    run(routines[0])

    def undone(routines: list[Routine]) -> list[str]:
        raise lost_connection("default")

    monkeypatch.setattr(history, "undone", undone)
    with pytest.raises(DatabaseUnavailable, match="database 'default' cannot be used"):
        run(*routines, patience=0.1)
    assert attempts("sqlite") == []


def losing(name: str, using: str) -> Callable[..., None]:
    """A receiver that deletes a completion, as a failover that loses commits does."""

    def lose(**kwargs: object) -> None:
        Completion.objects.using(using).filter(routine=name).delete()

    return lose


def test_nested_pass_is_refused(using: str) -> None:
    inner = seed(using, "inner")
    (result,) = run(seed(using, function=lambda: run(inner) and None))
    assert result.outcome is Outcome.FAILED
    assert isinstance(result.error, InsideTransaction)
    assert attempts(using) == [("shop.seed", 1, "failed")]


@pytest.mark.parametrize("code", [0, None, 3])
def test_exit_of_the_body_is_a_failure_and_not_the_end_of_the_program(
    using: str, code: int | None
) -> None:
    (result,) = run(seed(using, function=raising(SystemExit(code), using)))
    assert result.outcome is Outcome.FAILED
    assert f"sys.exit({code})" in result.message
    assert effects(using) == []
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_run_from_within_itself_is_refused(using: str) -> None:
    routine = seed(using)
    seen: list[BaseException] = []

    def again(**kwargs: Any) -> None:
        try:
            run(seed(using, name="shop.seed", version=2))
        except InsideRun as error:
            seen.append(error)

    with receiving(signals.attempt_finished, again):
        assert run(routine)[0].outcome is Outcome.RAN
    assert "Do it after that run" in str(seen[0])


def test_hook_after_the_commit_that_raises_is_reported(using: str) -> None:
    def fail() -> None:
        raise LookupError("no mail server")

    def body() -> None:
        Effect.objects.using(using).create(name="kept")
        transaction.on_commit(fail, using=using)

    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.RAN
    assert result.message == "Done and recorded, but afterwards: LookupError: no mail server"
    assert effects(using) == ["kept"]
    assert attempts(using) == [("shop.seed", 1, "succeeded")]


def test_fake_records_without_calling_and_without_heeding_after(using: str) -> None:
    first = seed(using, "first")
    second = seed(using, "second", after=["first"])
    registry = Registry([first, second])
    (result,) = executor.run([second], registry, RunOptions(trigger="fake"))
    assert result.outcome is Outcome.RECORDED
    assert effects(using) == []
    assert completions(using) == [("second", 1)]
    assert last(using).trigger == "fake"


def test_signals_come_in_order_and_survive_their_receivers(using: str) -> None:
    heard: list[object] = []

    def started(sender: Routine, attempt: Attempt, **kwargs: Any) -> None:
        heard.append(("started", sender.name, attempt.number))
        raise LookupError

    def finished(sender: Routine, result: Result, **kwargs: Any) -> None:
        heard.append(("finished", sender.name, str(result.outcome), completions(using)))
        raise LookupError

    def body() -> None:
        heard.append("body")

    bad = seed(using, "bad", function=raising(LookupError(), using))
    with receiving(signals.attempt_started, started), receiving(signals.attempt_finished, finished):
        run(seed(using, "good", function=body), bad, seed(using, "rest"))
    assert heard == [
        ("started", "good", 1),
        "body",
        ("finished", "good", "ran", [("good", 1)]),
        ("started", "bad", 1),
        ("finished", "bad", "failed", [("good", 1)]),
    ]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "begun"])
def test_older_version_is_superseded(using: str, recorded: bool) -> None:
    newer, older = seed(using, version=2), seed(using, version=1)
    if recorded:
        run(newer)
    else:
        recorder.close(begin(newer), State.FAILED)
    before = effects(using)
    (result,) = run(older, timeout=1.0)
    assert result.outcome is Outcome.ALREADY_DONE
    assert effects(using) == before
    assert [number for _, number, _ in attempts(using)] == [1]


def test_nothing_is_built_on_a_newer_version_that_is_not_done(using: str) -> None:
    newer, older = seed(using, version=2), seed(using, version=1)
    behind = seed(using, "shop.behind", after=[older.name])
    recorder.close(begin(newer), State.FAILED)
    before, skipped = run(older, behind)
    assert before.outcome is Outcome.ALREADY_DONE
    assert skipped.outcome is Outcome.SKIPPED
    assert "a newer version or value of it was begun, and is not done yet" in skipped.message
    assert effects(using) == []
    run(newer)
    assert [result.is_done for result in run(older, behind)] == [True, True]
    assert effects(using) == ["shop.behind", "shop.seed"]


def test_who_waited_is_told_of_a_newer_version_that_began_meanwhile(using: str) -> None:
    older = seed(using, version=1)
    behind = seed(using, "shop.behind", after=[older.name])
    lock = database(using).lock(older.name, 15)

    def overtake(**kwargs: Any) -> None:
        recorder.close(begin(seed(using, version=2)), State.FAILED)
        lock.release()

    ends: list[str] = []

    def note(message: str, **kwargs: Any) -> None:
        ends.append(message)

    with lock, receiving(signals.waiting, overtake), receiving(signals.waited, note):
        take(lock)
        before, skipped = run(older, behind)
    assert (before.outcome, before.reason) == (Outcome.WAITED, "overtaken")
    assert ends == ["left to a newer version or value of it, which was begun and is not done yet"]
    assert skipped.outcome is Outcome.SKIPPED
    assert "a newer version or value of it was begun, and is not done yet" in skipped.message
    assert effects(using) == []


def test_newer_version_that_is_done_by_its_turn_is_built_on(using: str) -> None:
    newer, older = seed(using, version=2), seed(using, version=1)
    recorder.close(begin(newer), State.FAILED)

    def complete_newer() -> None:
        recorder.complete(begin(newer))

    between = seed(using, "shop.between", function=complete_newer)
    results = run(older, between, seed(using, "shop.behind", after=[older.name]))
    assert [result.reason for result in results] == ["overtaken", None, None]
    assert results[-1].outcome is Outcome.RAN


def test_what_was_done_before_a_newer_version_began_is_built_on(using: str) -> None:
    older = seed(using, version=1)
    run(older)
    recorder.close(begin(seed(using, version=2)), State.FAILED)
    assert [result.is_done for result in run(older, seed(using, "shop.behind", after=[older]))] == [
        True,
        True,
    ]


def test_higher_version_runs_again_once(using: str) -> None:
    for version in (1, 2, 2, 1):
        run(seed(using, version=version))
    assert effects(using) == ["shop.seed", "shop.seed"]
    assert completions(using) == [("shop.seed", 1), ("shop.seed", 2)]


def test_routine_is_blocked_by_unapplied_migrations(using: str) -> None:
    with lacking_migrations(using, count=4) as names:
        first, second = run(seed(using, "first"), seed(using, "second"))
    assert (first.outcome, second.outcome) == (Outcome.SKIPPED, Outcome.SKIPPED)
    assert f"database '{using}' lacks migrations of this code" in first.message
    assert f"({', '.join(names[:3])} and 1 more)" in first.message
    assert "once run --migrate" in first.message
    assert attempts(using) == []


def test_routine_that_is_done_is_not_blocked(using: str) -> None:
    run(seed(using))
    with lacking_migrations(using):
        assert run(seed(using))[0].outcome is Outcome.ALREADY_DONE


def test_signal_is_heeded_between_two_routines(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = KeyboardInterrupt()
    first = seed(using, "shop.first", atomic=False)
    with (
        receiving(
            signals.attempt_finished,
            lambda **_: monkeypatch.setattr(shutdown._now, "pending", asked),
        ),
        pytest.raises(KeyboardInterrupt),
    ):
        run(first, seed(using, "shop.second"))
    assert effects(using) == ["shop.first"]
    assert attempts(using) == [("shop.first", 1, "succeeded")]


def test_signal_that_an_error_covers_is_heeded_before_the_next_routine(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cannot claim the first one would else begin the second one to break it off."""
    begin_attempt = recorder.begin
    errors = [conflict(using)]

    def fail_first(*arguments: Any, **options: Any) -> Attempt | None:
        if errors:
            assert shutdown.interrupt(KeyboardInterrupt())
            raise errors.pop()
        return begin_attempt(*arguments, **options)

    monkeypatch.setattr(recorder, "begin", fail_first)
    with pytest.raises(KeyboardInterrupt), shutdown.handled():
        run(seed(using, "shop.first"), seed(using, "shop.second"), wait=False)
    assert attempts(using) == []


@pytest.mark.parametrize("pauses", [True, False])
def test_what_comes_behind_is_read_again_after_a_pause_alone(
    using: str, pauses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, begin_attempt = history.read, recorder.begin
    errors = [conflict(using)] * pauses
    asked: list[list[str]] = []

    def note(routines: list[Routine], **options: Any) -> dict[str, Record]:
        asked.append([routine.name for routine in routines])
        return read(routines)

    def fail_first(*arguments: Any, **options: Any) -> Attempt | None:
        if errors:
            raise errors.pop()
        return begin_attempt(*arguments, **options)

    monkeypatch.setattr(history, "read", note)
    monkeypatch.setattr(recorder, "begin", fail_first)
    run(*(seed(using, name) for name in "abc"))
    assert asked[0] == ["a", "b", "c"]
    assert (["b", "c"] in asked[1:]) is pauses
