"""A pass over routines: what it answers, what it leaves behind, and what a body may not do."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    IntegrityError,
    OperationalError,
    close_old_connections,
    connections,
    transaction,
)
from django.db.backends.signals import connection_created
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext

from once import Routine, Run, interruption, ledger, migrate, record, runner, signals
from once.databases import database
from once.exceptions import (
    BodyError,
    CannotFence,
    DatabaseUnavailable,
    GuardLost,
    InsideRun,
    InsideTransaction,
    NoConnection,
)
from once.guards import Guard, SessionGuard
from once.models import Attempt, Completion, State
from once.registry import Registry
from once.runner import Act, Outcome
from tests.database.support import (
    attempts,
    begin,
    conflict,
    effects,
    last,
    lose_first_guard,
    lost_connection,
    receiving,
    rows,
    run,
    seed,
    take,
)
from tests.shop.models import Effect

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


NO_NAME: dict[str, Any] = {"name": None}


def completions(using: str) -> list[tuple[str, int]]:
    return list(Completion.objects.using(using).order_by("pk").values_list("routine", "version"))


def raising(error: BaseException, using: str) -> Callable[[], None]:
    def body() -> None:
        Effect.objects.using(using).create(name="undone")
        raise error

    return body


def test_routine_runs_and_is_recorded(using: str) -> None:
    (result,) = run(seed(using))
    assert (result.outcome, result.message, result.error) == (Outcome.RAN, "", None)
    assert result.is_done
    assert not result.timed_out
    assert result.attempt is not None
    assert (result.attempt.number, result.attempt.state) == (1, State.SUCCEEDED)
    assert effects(using) == ["shop.seed"]
    assert completions(using) == [("shop.seed", 1)]
    assert attempts(using) == [("shop.seed", 1, "succeeded")]
    assert last(using).trigger == "test"


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


def test_routine_that_another_process_completes_is_waited_for(using: str) -> None:
    routine = seed(using)
    guard = database(using).guard(routine.name, 15)
    reasons: list[str] = []

    def complete(reason: str, **kwargs: Any) -> None:
        reasons.append(reason)
        with transaction.atomic(using=using):
            ledger.complete(begin(routine))

    with guard, receiving(signals.waiting, complete):
        take(guard)
        (result,) = run(routine)
    assert result.outcome is Outcome.WAITED
    assert result.is_done
    assert effects(using) == []
    assert reasons[0].startswith("shop.seed is run by ")


def test_routine_that_another_process_gives_up_is_run(using: str) -> None:
    guard = database(using).guard("shop.seed", 15)
    with guard, receiving(signals.waiting, lambda **kwargs: guard.release()):
        take(guard)
        (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["shop.seed"]


def test_routine_in_other_hands_is_skipped_without_wait(using: str) -> None:
    with database(using).guard("shop.seed", 15) as guard:
        take(guard)
        (result,) = run(seed(using), wait=False)
    assert result.outcome is Outcome.SKIPPED
    assert not result.is_done
    assert not result.timed_out
    assert attempts(using) == []


def test_deadline_skips_and_says_why_for_the_rest(using: str) -> None:
    with database(using).guard("first", 15) as guard:
        take(guard)
        first, second = run(seed(using, "first"), seed(using, "second"), timeout=0.2)
    assert (first.outcome, first.timed_out) == (Outcome.SKIPPED, True)
    assert "Gave up after 0." in first.message
    assert "first is run by" in first.message
    assert (second.outcome, second.timed_out) == (Outcome.SKIPPED, False)
    assert second.message == "Not tried, since the deadline passed at first."


def test_failure_is_rolled_back_and_recorded_with_its_traceback(using: str) -> None:
    error = LookupError("no such currency")
    (result,) = run(seed(using, function=raising(error, using)))
    assert result.outcome is Outcome.FAILED
    assert not result.is_done
    assert result.error is error
    assert "LookupError: no such currency. Nothing of it was committed." in result.message
    assert effects(using) == []
    assert completions(using) == []
    assert attempts(using) == [("shop.seed", 1, "failed")]
    assert last(using).error.startswith("Traceback")
    assert "in body" in last(using).error
    assert last(using).error.endswith("LookupError: no such currency\n")


def test_routine_that_failed_is_tried_again_with_the_same_key(using: str) -> None:
    keys: list[str] = []
    numbers: list[int] = []

    def body(run: Run) -> None:
        keys.append(run.key)
        numbers.append(run.attempt)
        run.check()
        assert run.using == using
        if len(keys) == 1:
            raise LookupError

    routine = seed(using, function=body)
    assert [run(routine)[0].outcome for _ in range(2)] == [Outcome.FAILED, Outcome.RAN]
    assert keys[0] == keys[1]
    assert numbers == [1, 2]
    assert attempts(using) == [("shop.seed", 1, "failed"), ("shop.seed", 2, "succeeded")]


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


def test_routine_is_skipped_where_its_predecessor_is_not_done(using: str) -> None:
    with database(using).guard("first", 15) as guard:
        take(guard)
        routines = [seed(using, "first"), seed(using, "second", after=["first"])]
        if using == DEFAULT_DB_ALIAS:  # the guard of SQLite is one for the whole database
            routines.append(seed(using, "apart"))
        results = run(*routines, wait=False)
    assert results[1].outcome is Outcome.SKIPPED
    assert results[1].message == "Not tried, since first must be done before."
    assert [result.outcome for result in results[2:]] == [Outcome.RAN] * (len(routines) - 2)


def test_predecessor_of_another_database_comes_first() -> None:
    first, second = seed("sqlite", "first"), seed("default", "second", after=["first"])
    results = run(second, first)
    assert [result.routine for result in results] == [first, second]
    assert (effects("sqlite"), effects("default")) == (["first"], ["second"])


def set_rollback(using: str) -> None:
    transaction.set_rollback(True, using=using)


def close(using: str) -> None:
    connections[using].close()


def expire(using: str) -> None:
    connections[using].close_at = 0.0
    close_old_connections()


def commit(using: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute("COMMIT")


def roll_back(using: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute("ROLLBACK")


def swallow_model_error(using: str) -> None:
    with suppress(IntegrityError):
        Effect.objects.using(using).create(**NO_NAME)


def swallow_error_of_raw_sql(using: str) -> None:
    with suppress(DatabaseError):
        rows(using, "SELECT no_such_column")


ROLLBACK_ASKED = (set_rollback, "asked for a rollback: by transaction.set_rollback(True)")
CAUGHT = (swallow_model_error, "catching a database error")
ENDED = (roll_back, "ended its transaction itself")


@pytest.mark.parametrize(
    ("using", "misdeed", "words"),
    [
        *(("default", *one) for one in (ROLLBACK_ASKED, CAUGHT, ENDED)),
        *(("sqlite", *one) for one in (ROLLBACK_ASKED, CAUGHT, ENDED)),
        # A connection to a database in memory stays open, and SQLite forgives errors.
        ("default", close, "closed the connection that its transaction lives on"),
        ("default", expire, "closed the connection that its transaction lives on"),
        pytest.param(
            "default",
            swallow_error_of_raw_sql,
            "caught a database error",
            marks=pytest.mark.postgresql,  # elsewhere the transaction goes on
        ),
    ],
)
def test_body_that_breaks_its_transaction_fails_and_leaves_nothing(
    using: str, misdeed: Callable[[str], None], words: str
) -> None:
    def body() -> None:
        Effect.objects.using(using).create(name="undone")
        misdeed(using)

    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.FAILED
    assert isinstance(result.error, BodyError)
    assert words in result.message
    assert effects(using) == []
    assert completions(using) == []
    assert attempts(using) == [("shop.seed", 1, "failed")]
    assert run(seed(using))[0].outcome is Outcome.RAN


def test_body_that_commits_by_itself_fails_and_is_not_recorded(using: str) -> None:
    def body() -> None:
        Effect.objects.using(using).create(name="stays")
        commit(using)
        Effect.objects.using(using).create(name="stays too")

    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.FAILED
    assert "What it committed stays and is not recorded" in result.message
    assert completions(using) == []
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_body_may_use_savepoints_and_catch_errors_around_them(using: str) -> None:
    def body() -> None:
        with pytest.raises(IntegrityError), transaction.atomic(using=using):
            Effect.objects.using(using).create(**NO_NAME)
        with transaction.atomic(using=using):
            Effect.objects.using(using).create(name="kept")

    assert run(seed(using, function=body))[0].outcome is Outcome.RAN
    assert effects(using) == ["kept"]


def test_async_body_shares_the_transaction(using: str) -> None:
    async def fine(run: Run) -> None:
        await Effect.objects.using(using).acreate(name="kept")

    async def failing() -> None:
        await Effect.objects.using(using).acreate(name="undone")
        raise LookupError

    results = run(seed(using, "a", function=fine), seed(using, "b", function=failing))
    assert [result.outcome for result in results] == [Outcome.RAN, Outcome.FAILED]
    assert effects(using) == ["kept"]


def test_nested_pass_is_refused(using: str) -> None:
    inner = seed(using, "inner")
    (result,) = run(seed(using, function=lambda: run(inner) and None))
    assert result.outcome is Outcome.FAILED
    assert isinstance(result.error, InsideTransaction)
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_pass_inside_a_transaction_is_refused(using: str) -> None:
    with (
        transaction.atomic(using=using),
        pytest.raises(InsideTransaction, match=f"inside a transaction of database '{using}'"),
    ):
        run(seed(using))
    assert attempts(using) == []


def test_end_of_the_process_is_recorded_and_goes_on(using: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(seed(using, function=raising(KeyboardInterrupt(), using)))
    assert effects(using) == []
    assert attempts(using) == [("shop.seed", 1, "interrupted")]
    assert "KeyboardInterrupt" in last(using).error
    assert run(seed(using))[0].outcome is Outcome.RAN  # the guard is free


@pytest.mark.parametrize("code", [0, None, 3])
def test_exit_of_the_body_is_a_failure_and_not_the_end_of_the_program(
    using: str, code: int | None
) -> None:
    (result,) = run(seed(using, function=raising(SystemExit(code), using)))
    assert result.outcome is Outcome.FAILED
    assert f"sys.exit({code})" in result.message
    assert effects(using) == []
    assert attempts(using) == [("shop.seed", 1, "failed")]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (FileNotFoundError(b"\xff.csv".decode("utf8", "surrogateescape")), "\\udcff.csv"),
        (ValueError("a\0b"), "a\\x00b"),
        (Unspeakable(), "Unspeakable"),
        (ValueError("x" * 100_000), "x" * 9_000),
    ],
    ids=["surrogate", "nul", "no-message", "long"],
)
def test_error_is_recorded_whatever_it_says(
    using: str, error: Exception, recorded: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Not captured: pytest could not carry it from one of its processes to another.
    caplog.set_level(logging.CRITICAL, logger="once")
    (result,) = run(seed(using, function=raising(error, using)))
    assert result.outcome is Outcome.FAILED
    assert attempts(using) == [("shop.seed", 1, "failed")]
    assert recorded in last(using).error
    assert len(last(using).error) <= 10_000


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


def test_claim_that_a_receiver_spoils_is_no_lost_race(using: str) -> None:
    def spoil(**kwargs: Any) -> None:
        raise IntegrityError("audit log is full")

    post_save.connect(spoil, sender=Attempt)
    try:
        (result,) = run(seed(using))
    finally:
        post_save.disconnect(spoil, sender=Attempt)
    assert result.outcome is Outcome.FAILED
    assert "audit log is full" in result.message
    assert run(seed(using))[0].outcome is Outcome.RAN


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


def test_hook_after_the_commit_runs_once_and_after_it(using: str) -> None:
    seen: list[list[tuple[str, int]]] = []

    def body() -> None:
        transaction.on_commit(lambda: seen.append(completions(using)), using=using)

    run(seed(using, function=body))
    assert seen == [[("shop.seed", 1)]]


def test_fake_records_without_calling_and_without_heeding_after(using: str) -> None:
    first = seed(using, "first")
    second = seed(using, "second", after=["first"])
    registry = Registry([first, second])
    (result,) = runner.run([second], registry=registry, trigger="fake", act=Act.FAKE)
    assert result.outcome is Outcome.RAN
    assert effects(using) == []
    assert completions(using) == [("second", 1)]
    assert last(using).trigger == "fake"


def test_signals_come_in_order_and_survive_their_receivers(using: str) -> None:
    heard: list[object] = []

    def started(sender: Routine, attempt: Attempt, **kwargs: Any) -> None:
        heard.append(("started", sender.name, attempt.number))
        raise LookupError

    def finished(sender: Routine, result: runner.Result, **kwargs: Any) -> None:
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


@pytest.mark.parametrize("name", ["attempt_started", "attempt_finished"])
def test_receiver_whose_query_fails_does_not_disturb(using: str, name: str) -> None:
    def fail(**kwargs: Any) -> None:
        Effect.objects.using(using).create(**NO_NAME)

    with receiving(getattr(signals, name), fail):
        (result,) = run(seed(using))
    assert (result.outcome, result.message) == (Outcome.RAN, "")
    assert effects(using) == ["shop.seed"]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "begun"])
def test_older_version_is_superseded(using: str, recorded: bool) -> None:
    newer, older = seed(using, version=2), seed(using, version=1)
    if recorded:
        run(newer)
    else:
        ledger.close(begin(newer), State.FAILED)
    before = effects(using)
    (result,) = run(older, timeout=1.0)
    assert result.outcome is Outcome.ALREADY_DONE
    assert effects(using) == before
    assert [number for _, number, _ in attempts(using)] == [1]


def test_nothing_is_built_on_a_newer_version_that_is_not_done(using: str) -> None:
    newer, older = seed(using, version=2), seed(using, version=1)
    behind = seed(using, "shop.behind", after=[older.name])
    ledger.close(begin(newer), State.FAILED)
    before, skipped = run(older, behind)
    assert before.outcome is Outcome.ALREADY_DONE
    assert skipped.outcome is Outcome.SKIPPED
    assert "a newer version of it was begun, and is not done yet" in skipped.message
    assert effects(using) == []
    run(newer)
    assert [result.is_done for result in run(older, behind)] == [True, True]
    assert effects(using) == ["shop.behind", "shop.seed"]


def test_who_waited_is_told_of_a_newer_version_that_began_meanwhile(using: str) -> None:
    older = seed(using, version=1)
    behind = seed(using, "shop.behind", after=[older.name])
    guard = database(using).guard(older.name, 15)

    def overtake(**kwargs: Any) -> None:
        ledger.close(begin(seed(using, version=2)), State.FAILED)
        guard.release()

    with guard, receiving(signals.waiting, overtake):
        take(guard)
        before, skipped = run(older, behind)
    assert (before.outcome, before.is_overtaken) == (Outcome.WAITED, True)
    assert skipped.outcome is Outcome.SKIPPED
    assert "a newer version of it was begun, and is not done yet" in skipped.message
    assert effects(using) == []


def test_newer_version_that_is_done_by_its_turn_is_built_on(using: str) -> None:
    newer, older = seed(using, version=2), seed(using, version=1)
    ledger.close(begin(newer), State.FAILED)

    def complete_newer() -> None:
        ledger.complete(begin(newer))

    between = seed(using, "shop.between", function=complete_newer)
    results = run(older, between, seed(using, "shop.behind", after=[older.name]))
    assert [result.is_overtaken for result in results] == [True, False, False]
    assert results[-1].outcome is Outcome.RAN


def test_what_was_done_before_a_newer_version_began_is_built_on(using: str) -> None:
    older = seed(using, version=1)
    run(older)
    ledger.close(begin(seed(using, version=2)), State.FAILED)
    assert [result.is_done for result in run(older, seed(using, "shop.behind", after=[older]))] == [
        True,
        True,
    ]


def test_higher_version_runs_again_once(using: str) -> None:
    for version in (1, 2, 2, 1):
        run(seed(using, version=version))
    assert effects(using) == ["shop.seed", "shop.seed"]
    assert completions(using) == [("shop.seed", 1), ("shop.seed", 2)]


def test_lost_predecessor_is_succeeded(using: str) -> None:
    begin(seed(using))
    assert run(seed(using))[0].outcome is Outcome.RAN
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "succeeded")]


def test_predecessor_that_commits_at_the_last_moment_has_done_it(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    routine = seed(using)
    predecessor = begin(routine)
    close = ledger.close

    def commit_first(attempt: Attempt, *args: Any, **options: Any) -> State:
        if attempt == predecessor:
            with transaction.atomic(using=using):
                ledger.complete(predecessor)
        return close(attempt, *args, **options)

    monkeypatch.setattr(ledger, "close", commit_first)
    (result,) = run(routine)
    assert result.outcome is Outcome.WAITED
    assert effects(using) == []
    assert attempts(using) == [("shop.seed", 1, "succeeded"), ("shop.seed", 2, "interrupted")]


def test_attempt_that_is_fenced_before_its_work_calls_no_body(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    begin = ledger.begin

    def begin_and_be_fenced(*args: Any, **options: Any) -> Attempt | None:
        attempt = begin(*args, **options)
        if attempt is not None and attempt.number == 1:
            ledger.close(attempt, State.LOST)
        return attempt

    def body(run: Run) -> None:
        numbers.append(run.attempt)

    monkeypatch.setattr(ledger, "begin", begin_and_be_fenced)
    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.RAN
    assert numbers == [2]
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "succeeded")]


def test_attempt_that_is_fenced_while_at_work_commits_nothing_and_is_repeated(using: str) -> None:
    """By whoever held the guard; it is free again, so this process goes on by itself."""
    calls: list[int] = []

    def body(run: Run) -> None:
        calls.append(run.attempt)
        Effect.objects.using(using).create(name=f"attempt {run.attempt}")
        if len(calls) == 1:
            # in the body's own transaction: as if a successor's fence had come between
            running = Attempt.objects.using(using).filter(number=1)
            running.update(state=State.LOST, finished_at=running[0].started_at)

    (result,) = run(seed(using, function=body))
    assert calls == [1, 2]
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["attempt 2"]


def test_guard_lost_before_the_body_is_tried_again(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_first_guard(using, monkeypatch)
    (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["shop.seed"]
    assert attempts(using) == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


def test_guard_that_makes_way_for_the_claim_is_survived(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gave itself up, since there was no connection for the work: until the patience ends."""
    announced: list[int] = []
    lose_first_guard(using, monkeypatch, "check", error=NoConnection)
    with receiving(signals.attempt_started, lambda attempt, **_: announced.append(attempt.number)):
        (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert announced == [2]
    assert attempts(using) == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


def test_guard_that_never_gets_a_connection_for_the_work_is_said(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(self: Guard) -> None:
        raise NoConnection("No second connection")

    monkeypatch.setattr(type(database(using).guard("shop.seed", 15.0)), "check", lack)
    with pytest.raises(DatabaseUnavailable, match="No second connection") as failure:
        run(seed(using), patience=0)
    assert "Check that it runs" not in str(failure.value)
    assert effects(using) == []


@pytest.mark.parametrize("method", ["read", "check"])
def test_guard_lost_before_the_attempt_is_announced_is_told_to_who_does_not_wait(
    using: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(self: Guard, *arguments: Any) -> None:
        raise GuardLost("evicted")

    monkeypatch.setattr(type(database(using).guard("shop.seed", 15.0)), method, lose)
    (result,) = run(seed(using), wait=False)
    assert (result.outcome, result.message) == (Outcome.SKIPPED, "evicted")
    assert not result.has_failed
    assert {state for _, _, state in attempts(using)} <= {"interrupted"}


def test_claim_and_fence_and_lock_are_waited_for_while_the_guard_may_give_up(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    within: list[str] = []
    yields: list[bool] = []
    kind = type(database(using).guard("shop.seed", 15.0))
    yielding = kind.yielding

    @contextmanager
    def noted(self: Guard) -> Iterator[None]:
        yields.append(True)
        try:
            with yielding(self):
                yield
        finally:
            yields.pop()

    def note(name: str) -> None:
        original = getattr(ledger, name)

        def call(*arguments: Any, **options: Any) -> Any:
            within.append(f"{name}, yielding {len(yields)}")
            return original(*arguments, **options)

        monkeypatch.setattr(ledger, name, call)

    begin(seed(using))
    monkeypatch.setattr(kind, "yielding", noted)
    for name in ("begin", "close", "work_name", "complete"):
        note(name)
    assert run(seed(using))[0].outcome is Outcome.RAN
    assert [line for line in within if not line.startswith("work_name")] == [
        "begin, yielding 1",
        "close, yielding 1",
        "complete, yielding 0",
    ]
    assert "work_name, yielding 1" in within


def test_predecessor_that_cannot_be_fenced_is_waited_for_under_a_guard_that_is_asked(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = ledger.close
    refusals = [CannotFence("GRANT pg_signal_backend"), CannotFence("GRANT pg_signal_backend")]
    reasons: list[str] = []

    def refuse(attempt: Attempt, *arguments: Any, **options: Any) -> State:
        if refusals and attempt.number == 1:
            raise refusals.pop()
        return close(attempt, *arguments, **options)

    begin(seed(using))
    monkeypatch.setattr(ledger, "close", refuse)
    with receiving(signals.waiting, lambda reason, **_: reasons.append(reason)):
        assert run(seed(using))[0].outcome is Outcome.RAN
    assert reasons[:1] == ["GRANT pg_signal_backend"]
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "succeeded")]


def test_predecessor_that_cannot_be_fenced_is_told_to_who_does_not_wait(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = ledger.close

    def refuse(attempt: Attempt, *arguments: Any, **options: Any) -> State:
        if attempt.number == 1:
            raise CannotFence("GRANT pg_signal_backend")
        return close(attempt, *arguments, **options)

    begin(seed(using))
    monkeypatch.setattr(ledger, "close", refuse)
    (result,) = run(seed(using), wait=False)
    assert (result.outcome, result.message) == (Outcome.SKIPPED, "GRANT pg_signal_backend")
    assert attempts(using) == [("shop.seed", 1, "running"), ("shop.seed", 2, "interrupted")]


def test_work_that_another_session_claims_is_no_work_of_this_one(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [False]
    here = type(database(using))
    lock_work = here.lock_work
    monkeypatch.setattr(
        here, "lock_work", lambda self, name: refusals.pop() if refusals else lock_work(self, name)
    )
    (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert [state for _, _, state in attempts(using)] == ["failed", "succeeded"]
    first = Attempt.objects.using(using).get(number=1)
    assert "Another session claims to work on shop.seed v1 attempt 1." in first.error


def test_liveness_doubles_with_each_attempt_lost_in_a_row(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_LIVENESS_TIMEOUT", "2")
    kept: list[float] = []
    monkeypatch.setattr(Guard, "keep", lambda self, liveness: kept.append(liveness))
    if using == DEFAULT_DB_ALIAS:
        monkeypatch.setattr(SessionGuard, "keep", lambda self, liveness: kept.append(liveness))
    for lost in range(6):
        routine = seed(using, f"r{lost}")
        for _ in range(lost):
            ledger.close(begin(routine), State.LOST)
        run(routine)
    assert kept == [4.0, 8.0, 16.0, 16.0, 16.0]


def test_routine_is_blocked_by_unapplied_migrations(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "unapplied", lambda using: ["shop.0002", "a.1", "b.1", "c.1"])
    first, second = run(seed(using, "first"), seed(using, "second"))
    assert (first.outcome, second.outcome) == (Outcome.SKIPPED, Outcome.SKIPPED)
    assert f"database '{using}' lacks migrations of this code" in first.message
    assert "(shop.0002, a.1, b.1 and 1 more)" in first.message
    assert "once run --migrate" in first.message
    assert attempts(using) == []


def test_routine_that_is_done_is_not_blocked(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(seed(using))
    monkeypatch.setattr(migrate, "unapplied", lambda using: ["shop.0002"])
    assert run(seed(using))[0].outcome is Outcome.ALREADY_DONE


def test_connection_that_was_closed_is_closed_after() -> None:
    connections["default"].close()
    run(seed("default"))
    assert connections["default"].connection is None
    run(seed("default"))
    assert connections["default"].connection is None


def test_connection_that_was_open_stays_open() -> None:
    connections["default"].ensure_connection()
    before = connections["default"].connection
    run(seed("default"))
    run(seed("default"))
    assert connections["default"].connection is before


def test_nothing_to_do_is_one_query_on_one_connection(using: str) -> None:
    routines = [seed(using, f"r{number}") for number in range(1_000)]
    Completion.objects.using(using).bulk_create(
        Completion(routine=routine.name, version=1) for routine in routines
    )
    connections[using].ensure_connection()
    opened: list[str] = []

    def note(connection: Any, **kwargs: Any) -> None:
        opened.append(connection.alias)

    with receiving(connection_created, note), CaptureQueriesContext(connections[using]) as queries:
        results = run(*routines)
    assert len(queries) == 1
    assert queries[0]["sql"].count("SELECT") == 1
    assert opened == []
    assert {result.outcome for result in results} == {Outcome.ALREADY_DONE}


def test_nothing_at_all_asks_nobody() -> None:
    with CaptureQueriesContext(connections["default"]) as queries:
        assert run() == []
    assert len(queries) == 0


def test_body_of_a_transaction_in_conflict_is_repeated(using: str) -> None:
    """A serialization failure, or a busy database, undid the first transaction."""
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        Effect.objects.using(using).create(name=f"call {len(calls)}")
        if len(calls) == 1:
            raise conflict(using)

    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["call 2"]
    assert attempts(using) == [("shop.seed", 1, "succeeded")]


def test_body_that_is_always_in_conflict_is_repeated_by_one_attempt_alone(using: str) -> None:
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        raise conflict(using)

    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.FAILED
    assert len(calls) == 10
    assert attempts(using) == [("shop.seed", 1, "failed")]


@pytest.mark.parametrize(("retry", "number"), [(False, 2), (True, 1)])
def test_conflict_before_the_body_is_repeated_by_the_attempt_or_by_the_next_one(
    using: str, retry: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = ledger.lock
    errors = [conflict(using)]

    def fail_first(attempt: Attempt) -> None:
        if errors:
            raise errors.pop()
        lock(attempt)

    monkeypatch.setattr(ledger, "lock", fail_first)
    (result,) = run(seed(using, retry=retry))
    assert result.outcome is Outcome.RAN
    assert last(using).number == number
    assert effects(using) == ["shop.seed"]


def test_database_that_cannot_be_reached_is_said_after_the_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections["default"].close()
    monkeypatch.setitem(connections["default"].settings_dict, "PORT", "1")
    monkeypatch.setitem(connections["default"].settings_dict, "HOST", "127.0.0.1")
    with pytest.raises(
        DatabaseUnavailable, match=r"database 'default' cannot be used: .*DATABASES"
    ):
        run(seed("default"), patience=0.1)


def test_error_of_the_record_fails_the_routine(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise IntegrityError("not this one")

    monkeypatch.setattr(ledger, "begin", refuse)
    (result,) = run(seed(using))
    assert result.outcome is Outcome.FAILED
    assert result.message == "Its record could not be kept: IntegrityError: not this one"
    assert result.attempt is None


def test_autocommit_off_in_the_settings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    connections[DEFAULT_DB_ALIAS].close()
    monkeypatch.setitem(connections[DEFAULT_DB_ALIAS].settings_dict, "AUTOCOMMIT", False)
    with pytest.raises(InsideTransaction, match="Autocommit is off"):
        run(seed(DEFAULT_DB_ALIAS))


def test_autocommit_off_by_the_caller_is_refused_and_nothing_of_it_committed(using: str) -> None:
    transaction.set_autocommit(False, using=using)
    try:
        Effect.objects.using(using).create(name="of the caller")
        with pytest.raises(InsideTransaction, match="Autocommit is off"):
            run(seed(using))
        record.read([seed(using)])
        transaction.rollback(using=using)
    finally:
        transaction.set_autocommit(True, using=using)
    assert effects(using) == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], ""),
        (["a.0001"], "(a.0001)"),
        (["a.0001", "a.0002", "b.0001"], "(a.0001, a.0002, b.0001)"),
        (["a.0001", "a.0002", "b.0001", "b.0002"], "(a.0001, a.0002, b.0001 and 1 more)"),
    ],
)
def test_blocked_names_three_migrations(names: list[str], told: str) -> None:
    message = runner._blocked("default", names)
    assert told in message
    assert bool(message) is bool(names)


@pytest.mark.parametrize("is_installed", [False, True])
def test_record_without_its_tables_knows_nothing(
    using: str, is_installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(routines: list[Routine]) -> None:
        raise DatabaseError("no such table")

    monkeypatch.setattr(record, "read", fail)
    monkeypatch.setattr(record, "is_installed", lambda using: is_installed)
    monkeypatch.setattr(migrate, "unapplied", lambda using: ["once.0001_initial"])
    if is_installed:
        with pytest.raises(DatabaseError, match="no such table"):
            run(seed(using))
    else:
        (result,) = run(seed(using))
        assert "lacks migrations of this code (once.0001_initial)" in result.message


@pytest.mark.parametrize("wait", [True, False])
def test_conflict_of_the_first_look_is_waited_out_by_who_waits(
    using: str, wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = record.read
    errors = [conflict(using)]

    def fail_first(routines: list[Routine]) -> dict[str, record.Record]:
        if errors:
            raise errors.pop()
        return read(routines)

    monkeypatch.setattr(record, "read", fail_first)
    if wait:
        assert run(seed(using))[0].outcome is Outcome.RAN
    else:
        with pytest.raises(OperationalError, match="in the way"):
            run(seed(using), wait=False)


def test_signal_is_heeded_between_two_routines(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = KeyboardInterrupt()
    first = seed(using, "shop.first", atomic=False)
    with (
        receiving(
            signals.attempt_finished,
            lambda **_: monkeypatch.setattr(interruption, "_pending", asked),
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
    begin_attempt = ledger.begin
    errors = [conflict(using)]

    def fail_first(*arguments: Any, **options: Any) -> Attempt | None:
        if errors:
            assert interruption.interrupt(KeyboardInterrupt())
            raise errors.pop()
        return begin_attempt(*arguments, **options)

    monkeypatch.setattr(ledger, "begin", fail_first)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(seed(using, "shop.first"), seed(using, "shop.second"), wait=False)
    finally:
        interruption.forget()
    assert attempts(using) == []


def test_guards_session_goes_from_one_routine_to_the_next(using: str) -> None:
    made: list[str] = []
    with receiving(connection_created, lambda **_: made.append(threading.current_thread().name)):
        run(*(seed(using, name) for name in "abc"))
    sessions = [name for name in made if name.startswith("once guard of ")]
    assert len(sessions) == (connections[using].vendor != "sqlite")


def test_lost_record_is_survived_and_the_guards_session_given_back(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot answer for a moment: others may lack the connection."""
    begin_attempt = ledger.begin
    errors = [lost_connection(using)]
    released: list[bool] = []
    kind = type(database(using).guard("shop.seed", 15.0))
    release = kind.release

    def fail_first(*arguments: Any, **options: Any) -> Attempt | None:
        if errors:
            raise errors.pop()
        assert released
        return begin_attempt(*arguments, **options)

    def note(self: Guard) -> None:
        released.append(True)
        release(self)

    monkeypatch.setattr(kind, "release", note)
    monkeypatch.setattr(ledger, "begin", fail_first)
    assert run(seed(using))[0].outcome is Outcome.RAN


@pytest.mark.parametrize("wait", [True, False])
def test_conflict_of_the_claim_is_told_and_tried_again_by_who_waits(
    using: str, wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_attempt = ledger.begin
    errors = [conflict(using)]
    reasons: list[str] = []

    def fail_first(*arguments: Any, **options: Any) -> Attempt | None:
        if errors:
            raise errors.pop()
        return begin_attempt(*arguments, **options)

    monkeypatch.setattr(ledger, "begin", fail_first)
    with receiving(signals.waiting, lambda reason, **_: reasons.append(reason)):
        (result,) = run(seed(using), wait=wait)
    if wait:
        assert result.outcome is Outcome.RAN
        [reason] = reasons
    else:
        assert result.outcome is Outcome.SKIPPED
        reason = result.message
    assert "in the way" in reason


@pytest.mark.parametrize(
    ("refusals", "patience", "state"), [(1, 30.0, "failed"), (99, 0.0, "running")]
)
def test_end_that_cannot_be_recorded_is_tried_again_until_the_patience_ends(
    using: str, refusals: int, patience: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = ledger.close
    left = [CannotFence("GRANT pg_signal_backend")] * refusals

    def refuse(*arguments: Any, **options: Any) -> State:
        if left:
            raise left.pop()
        return close(*arguments, **options)

    def body() -> None:
        raise LookupError("no such brand")

    monkeypatch.setattr(ledger, "close", refuse)
    (result,) = run(seed(using, function=body), patience=patience)
    assert result.outcome is Outcome.FAILED
    assert attempts(using) == [("shop.seed", 1, state)]
    assert len(left) == (0 if state == "failed" else refusals - 1)


def test_deadline_that_passes_before_a_predecessor_is_fenced_is_no_failure(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = ledger.close

    def refuse(attempt: Attempt, *arguments: Any, **options: Any) -> State:
        if attempt.number == 1:
            raise CannotFence("GRANT pg_signal_backend")
        return close(attempt, *arguments, **options)

    begin(seed(using))
    monkeypatch.setattr(ledger, "close", refuse)
    (result,) = run(seed(using), timeout=0.2)
    assert (result.outcome, result.timed_out) == (Outcome.SKIPPED, True)
    assert attempts(using) == [("shop.seed", 1, "running"), ("shop.seed", 2, "interrupted")]


@pytest.mark.parametrize("pauses", [True, False])
def test_what_comes_behind_is_read_again_after_a_pause_alone(
    using: str, pauses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, begin_attempt = record.read, ledger.begin
    errors = [conflict(using)] * pauses
    asked: list[list[str]] = []

    def note(routines: list[Routine]) -> dict[str, record.Record]:
        asked.append([routine.name for routine in routines])
        return read(routines)

    def fail_first(*arguments: Any, **options: Any) -> Attempt | None:
        if errors:
            raise errors.pop()
        return begin_attempt(*arguments, **options)

    monkeypatch.setattr(record, "read", note)
    monkeypatch.setattr(ledger, "begin", fail_first)
    run(*(seed(using, name) for name in "abc"))
    assert asked[0] == ["a", "b", "c"]
    assert (["b", "c"] in asked[1:]) is pauses
