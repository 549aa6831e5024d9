"""A pass over routines: what it answers, what it leaves behind, and what a body may not do."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    IntegrityError,
    close_old_connections,
    connections,
    transaction,
)
from django.db.backends.signals import connection_created
from django.test.utils import CaptureQueriesContext

from once import Routine, Run, signals
from once.databases import database, tables
from once.databases.lock import AdvisoryLock
from once.databases.session_lock import SessionLock
from once.exceptions import (
    BodyError,
    CannotFence,
    DatabaseUnavailable,
    InsideTransaction,
    LockLost,
    NoConnection,
)
from once.models import Attempt, Completion, State
from once.record import history, recorder
from once.record.standing import Record
from once.results import Outcome
from tests.shop.models import Effect
from tests.support import (
    attempts,
    begin,
    beside,
    completions,
    conflict,
    effects,
    lacking_migrations,
    last,
    lose_first_lock,
    lost_connection,
    raising,
    receiving,
    rows,
    run,
    seed,
    take,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


NO_NAME: dict[str, Any] = {"name": None}


def test_routine_runs_and_is_recorded(using: str) -> None:
    (result,) = run(seed(using))
    assert (result.outcome, result.message, result.error) == (Outcome.RAN, "", None)
    assert result.is_done
    assert result.reason is None
    assert result.attempt is not None
    assert (result.attempt.number, result.attempt.state) == (1, State.SUCCEEDED)
    assert effects(using) == ["shop.seed"]
    assert completions(using) == [("shop.seed", 1)]
    assert attempts(using) == [("shop.seed", 1, "succeeded")]
    assert last(using).trigger == "test"


def test_routine_that_another_process_completes_is_waited_for(using: str) -> None:
    routine = seed(using)
    lock = database(using).lock(routine.name, 15)
    reasons: list[str] = []

    def complete(reason: str, **kwargs: Any) -> None:
        reasons.append(reason)
        with transaction.atomic(using=using):
            recorder.complete(begin(routine))

    with lock, receiving(signals.waiting, complete):
        take(lock)
        (result,) = run(routine)
    assert result.outcome is Outcome.WAITED
    assert result.is_done
    assert effects(using) == []
    assert reasons[0].startswith("shop.seed is run by ")


def test_routine_that_another_process_gives_up_is_run(using: str) -> None:
    lock = database(using).lock("shop.seed", 15)
    with lock, receiving(signals.waiting, lambda **kwargs: lock.release()):
        take(lock)
        (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["shop.seed"]


def test_routine_in_other_hands_is_skipped_without_wait(using: str) -> None:
    with database(using).lock("shop.seed", 15) as lock:
        take(lock)
        (result,) = run(seed(using), wait=False)
    assert result.outcome is Outcome.SKIPPED
    assert not result.is_done
    assert result.reason is None
    assert attempts(using) == []


def test_failure_is_rolled_back_and_recorded_with_its_traceback(using: str) -> None:
    error = LookupError("no such currency")
    (result,) = run(seed(using, function=raising(error, using)))
    assert result.outcome is Outcome.FAILED
    assert not result.is_done
    assert result.error is error
    assert (
        "LookupError: no such currency. Nothing of its transaction was committed." in result.message
    )
    assert effects(using) == []
    assert completions(using) == []
    assert attempts(using) == [("shop.seed", 1, "failed")]
    assert last(using).error.startswith("LookupError: no such currency\nTraceback")
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


def test_routine_is_skipped_where_its_predecessor_is_not_done(using: str) -> None:
    with database(using).lock("first", 15) as lock:
        take(lock)
        routines = [seed(using, "first"), seed(using, "second", after=["first"])]
        if using == DEFAULT_DB_ALIAS:  # the lock of SQLite is one for the whole database
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
    # SQLite is told of each BEGIN; to a server the next statement is part of a transaction.
    assert effects(using) == ["stays", *(["stays too"] if using == "sqlite" else [])]
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
    assert run(seed(using))[0].outcome is Outcome.RAN  # the lock is free


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


#: What has a table refuse each new row by the error that a duplicate raises, and what ends that.
SPOILED = {
    "sqlite": (
        "CREATE TRIGGER spoil BEFORE INSERT ON once_attempt "
        "BEGIN SELECT RAISE(ABORT, 'audit log is full'); END",
        "DROP TRIGGER spoil",
    ),
    "postgresql": (
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE unique_violation USING MESSAGE = 'audit log is full'; END$$; "
        "CREATE TRIGGER spoil BEFORE INSERT ON once_attempt "
        "FOR EACH ROW EXECUTE FUNCTION spoil()",
        "DROP FUNCTION spoil CASCADE",
    ),
    "mysql": (
        "CREATE TRIGGER spoil BEFORE INSERT ON once_attempt FOR EACH ROW SIGNAL SQLSTATE '23000' "
        "SET MYSQL_ERRNO = 1062, MESSAGE_TEXT = 'audit log is full'",
        "DROP TRIGGER spoil",
    ),
}


def test_claim_that_a_trigger_spoils_is_no_lost_race(using: str) -> None:
    connection = connections[using]
    spoil, mend = SPOILED[connection.vendor]
    tables.execute(connection, spoil)
    try:
        with pytest.raises(DatabaseUnavailable, match="audit log is full"):
            run(seed(using), patience=0)
    finally:
        tables.execute(connection, mend)
    assert run(seed(using))[0].outcome is Outcome.RAN


def test_hook_after_the_commit_runs_once_and_after_it(using: str) -> None:
    seen: list[list[tuple[str, int]]] = []

    def body() -> None:
        transaction.on_commit(lambda: seen.append(completions(using)), using=using)

    run(seed(using, function=body))
    assert seen == [[("shop.seed", 1)]]


@pytest.mark.parametrize("name", ["attempt_started", "attempt_finished"])
def test_receiver_whose_query_fails_does_not_disturb(using: str, name: str) -> None:
    def fail(**kwargs: Any) -> None:
        Effect.objects.using(using).create(**NO_NAME)

    with receiving(getattr(signals, name), fail):
        (result,) = run(seed(using))
    assert (result.outcome, result.message) == (Outcome.RAN, "")
    assert effects(using) == ["shop.seed"]


def test_lost_predecessor_is_succeeded(using: str) -> None:
    begin(seed(using))
    assert run(seed(using))[0].outcome is Outcome.RAN
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "succeeded")]


def test_predecessor_that_commits_at_the_last_moment_has_done_it(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    routine = seed(using)
    predecessor = begin(routine)
    close = recorder.close

    def commit_first(attempt: Attempt, *args: Any, **options: Any) -> State:
        if attempt == predecessor:
            with transaction.atomic(using=using):
                recorder.complete(predecessor)
        return close(attempt, *args, **options)

    monkeypatch.setattr(recorder, "close", commit_first)
    (result,) = run(routine)
    assert result.outcome is Outcome.WAITED
    assert effects(using) == []
    assert attempts(using) == [("shop.seed", 1, "succeeded"), ("shop.seed", 2, "interrupted")]


def test_attempt_that_is_fenced_before_its_work_calls_no_body(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    begin = recorder.begin

    def begin_and_be_fenced(*args: Any, **options: Any) -> Attempt | None:
        attempt = begin(*args, **options)
        if attempt is not None and attempt.number == 1:
            recorder.close(attempt, State.LOST)
        return attempt

    def body(run: Run) -> None:
        numbers.append(run.attempt)

    monkeypatch.setattr(recorder, "begin", begin_and_be_fenced)
    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.RAN
    assert numbers == [2]
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "succeeded")]


def test_attempt_that_is_fenced_while_at_work_commits_nothing_and_is_repeated(using: str) -> None:
    """By whoever held the lock; it is free again, so this process goes on by itself."""
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


def test_lock_lost_before_the_body_is_tried_again(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_first_lock(using, monkeypatch)
    (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["shop.seed"]
    assert attempts(using) == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


def test_lock_that_makes_way_for_the_claim_is_survived(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gave itself up, since there was no connection for the work: until the patience ends."""
    announced: list[int] = []
    lose_first_lock(using, monkeypatch, "check", error=NoConnection)
    with receiving(signals.attempt_started, lambda attempt, **_: announced.append(attempt.number)):
        (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert announced == [2]
    assert attempts(using) == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


def test_lock_that_never_gets_a_connection_for_the_work_is_said(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(self: AdvisoryLock) -> None:
        raise NoConnection("No second connection")

    monkeypatch.setattr(type(database(using).lock("shop.seed", 15.0)), "check", lack)
    with pytest.raises(DatabaseUnavailable, match="No second connection") as failure:
        run(seed(using), patience=0)
    assert "Check that it runs" not in str(failure.value)
    assert effects(using) == []


@pytest.mark.parametrize("method", ["read", "check"])
def test_lock_lost_before_the_attempt_is_announced_is_told_to_who_does_not_wait(
    using: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.close(begin(seed(using)), State.INTERRUPTED)  # so that there is something to read

    def lose(self: AdvisoryLock, *arguments: Any) -> None:
        raise LockLost("evicted")

    monkeypatch.setattr(type(database(using).lock("shop.seed", 15.0)), method, lose)
    (result,) = run(seed(using), wait=False)
    assert (result.outcome, result.message) == (Outcome.SKIPPED, "evicted")
    assert result.reason != "failed"
    assert {state for _, _, state in attempts(using)} == {"interrupted"}


def test_claim_and_fence_and_lock_are_waited_for_while_the_lock_may_give_up(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    within: list[str] = []
    yields: list[bool] = []
    kind = type(database(using).lock("shop.seed", 15.0))
    yielding = kind.yielding

    @contextmanager
    def noted(self: AdvisoryLock) -> Iterator[None]:
        yields.append(True)
        try:
            with yielding(self):
                yield
        finally:
            yields.pop()

    def note(name: str) -> None:
        original = getattr(recorder, name)

        def call(*arguments: Any, **options: Any) -> Any:
            within.append(f"{name}, yielding {len(yields)}")
            return original(*arguments, **options)

        monkeypatch.setattr(recorder, name, call)

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


def test_predecessor_that_cannot_be_fenced_is_waited_for_under_a_lock_that_is_asked(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = recorder.close
    refusals = [CannotFence("GRANT pg_signal_backend"), CannotFence("GRANT pg_signal_backend")]
    reasons: list[str] = []

    def refuse(attempt: Attempt, *arguments: Any, **options: Any) -> State:
        if refusals and attempt.number == 1:
            raise refusals.pop()
        return close(attempt, *arguments, **options)

    begin(seed(using))
    monkeypatch.setattr(recorder, "close", refuse)
    with receiving(signals.waiting, lambda reason, **_: reasons.append(reason)):
        assert run(seed(using))[0].outcome is Outcome.RAN
    assert reasons[:1] == ["GRANT pg_signal_backend"]
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "succeeded")]


@pytest.fixture
def unfenceable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session of a first attempt cannot be ended."""
    close = recorder.close

    def refuse(attempt: Attempt, *arguments: Any, **options: Any) -> State:
        if attempt.number == 1:
            raise CannotFence("GRANT pg_signal_backend")
        return close(attempt, *arguments, **options)

    monkeypatch.setattr(recorder, "close", refuse)


@pytest.mark.usefixtures("unfenceable")
def test_predecessor_that_cannot_be_fenced_is_told_to_who_does_not_wait(using: str) -> None:
    begin(seed(using))
    (result,) = run(seed(using), wait=False)
    assert (result.outcome, result.message) == (Outcome.SKIPPED, "GRANT pg_signal_backend")
    assert attempts(using) == [("shop.seed", 1, "running"), ("shop.seed", 2, "interrupted")]


def test_work_that_another_session_claims_is_no_work_of_this_one(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [False]
    here = type(database(using))
    mark_backend = here.mark_backend
    monkeypatch.setattr(
        here,
        "mark_backend",
        lambda self, *name: refusals.pop() if refusals else mark_backend(self, *name),
    )
    (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert [state for _, _, state in attempts(using)] == ["lost", "succeeded"]
    first = Attempt.objects.using(using).get(number=1)
    assert "Another session claims to work on shop.seed v1 attempt 1." in first.error


def test_liveness_doubles_with_each_attempt_lost_in_a_row(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_LIVENESS_TIMEOUT", "2")
    kept: list[float] = []
    monkeypatch.setattr(AdvisoryLock, "keep", lambda self, liveness: kept.append(liveness))
    if using == DEFAULT_DB_ALIAS:
        monkeypatch.setattr(SessionLock, "keep", lambda self, liveness: kept.append(liveness))
    for lost in range(6):
        routine = seed(using, f"r{lost}")
        for _ in range(lost):
            recorder.close(begin(routine), State.LOST)
        run(routine)
    assert kept == [4.0, 8.0, 16.0, 16.0, 16.0]


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


@pytest.mark.parametrize("using", ["default"])
def test_body_of_a_transaction_in_conflict_is_repeated(using: str) -> None:
    """A serialization failure undid the first transaction."""
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


@pytest.mark.parametrize("using", ["default"])
def test_body_that_is_always_in_conflict_is_repeated_by_one_attempt_alone(using: str) -> None:
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        raise conflict(using)

    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.FAILED
    assert len(calls) == 10
    assert attempts(using) == [("shop.seed", 1, "failed")]


async def write_in_a_loop() -> None:
    """Write by asyncio.run(), whose thread has a connection of its own."""
    try:
        await Effect.objects.using("sqlite").acreate(name="beside")
    finally:
        await sync_to_async(connections.close_all)()


def write_in_a_thread() -> None:
    with beside(lambda: Effect.objects.using("sqlite").create(name="beside")) as written:
        written.result(30)


@pytest.mark.parametrize("kind", ["atomic", "batched"])
@pytest.mark.parametrize(
    "write", [write_in_a_thread, lambda: asyncio.run(write_in_a_loop())], ids=["thread", "asyncio"]
)
def test_sqlite_body_that_waits_for_its_own_transaction_is_told_so_at_the_first_call(
    kind: str, write: Callable[[], None]
) -> None:
    """A database in memory says so at once, a file after the connection's timeout."""
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        write()

    options: dict[str, Any] = {"function": body}
    if kind == "batched":
        options = {"function": lambda items: body(), "over": lambda: [1, 2], "batch_size": 1}
    (result,) = run(seed("sqlite", **options))
    assert result.outcome is Outcome.FAILED
    assert "A thread or asyncio.run() in the body writes" in result.message
    assert calls == [1]
    assert attempts("sqlite") == [("shop.seed", 1, "failed")]


@pytest.mark.parametrize(("retry", "number"), [(False, 2), (True, 1)])
def test_conflict_before_the_body_is_repeated_by_the_attempt_or_by_the_next_one(
    using: str, retry: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = recorder.lock_attempt
    errors = [conflict(using)]

    def fail_first(attempt: Attempt) -> int:
        if errors:
            raise errors.pop()
        return lock(attempt)

    monkeypatch.setattr(recorder, "lock_attempt", fail_first)
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
        history.read([seed(using)])
        transaction.rollback(using=using)
    finally:
        transaction.set_autocommit(True, using=using)
    assert effects(using) == []


@pytest.mark.parametrize("is_installed", [False, True])
def test_record_without_its_tables_knows_nothing(
    using: str, is_installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(routines: list[Routine], **options: Any) -> None:
        raise DatabaseError("no such table")

    monkeypatch.setattr(history, "read", fail)
    monkeypatch.setattr(history, "is_installed", lambda using: is_installed)
    if is_installed:
        with pytest.raises(DatabaseUnavailable, match="no such table"):
            run(seed(using), patience=0)
    else:
        with lacking_migrations(using, "once") as names:
            (result,) = run(seed(using))
        assert f"lacks migrations of this code ({names[0]})" in result.message


@pytest.mark.parametrize("wait", [True, False])
def test_conflict_of_the_first_look_is_waited_out(
    using: str, wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = history.read
    errors = [conflict(using)]

    def fail_first(routines: list[Routine], **options: Any) -> dict[str, Record]:
        if errors:
            raise errors.pop()
        return read(routines)

    monkeypatch.setattr(history, "read", fail_first)
    assert run(seed(using), wait=wait)[0].outcome is Outcome.RAN


def test_locks_session_goes_from_one_routine_to_the_next(using: str) -> None:
    made: list[str] = []
    with receiving(connection_created, lambda **_: made.append(threading.current_thread().name)):
        run(*(seed(using, name) for name in "abc"))
    sessions = [name for name in made if name.startswith("once lock of ")]
    assert len(sessions) == (connections[using].vendor != "sqlite")


def test_lost_record_is_survived_and_the_locks_session_given_back(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot answer for a moment: others may lack the connection."""
    begin_attempt = recorder.begin
    errors = [lost_connection(using)]
    released: list[bool] = []
    kind = type(database(using).lock("shop.seed", 15.0))
    release = kind.release

    def fail_first(*arguments: Any, **options: Any) -> Attempt | None:
        if errors:
            raise errors.pop()
        assert released
        return begin_attempt(*arguments, **options)

    def note(self: AdvisoryLock) -> None:
        released.append(True)
        release(self)

    monkeypatch.setattr(kind, "release", note)
    monkeypatch.setattr(recorder, "begin", fail_first)
    assert run(seed(using))[0].outcome is Outcome.RAN


@pytest.mark.parametrize("wait", [True, False])
def test_conflict_of_the_claim_is_told_and_tried_again_by_who_waits(
    using: str, wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_attempt = recorder.begin
    errors = [conflict(using)]
    reasons: list[str] = []

    def fail_first(*arguments: Any, **options: Any) -> Attempt | None:
        if errors:
            raise errors.pop()
        return begin_attempt(*arguments, **options)

    monkeypatch.setattr(recorder, "begin", fail_first)
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
    close = recorder.close
    left = [CannotFence("GRANT pg_signal_backend")] * refusals

    def refuse(*arguments: Any, **options: Any) -> State:
        if left:
            raise left.pop()
        return close(*arguments, **options)

    def body() -> None:
        raise LookupError("no such brand")

    monkeypatch.setattr(recorder, "close", refuse)
    (result,) = run(seed(using, function=body), patience=patience)
    assert result.outcome is Outcome.FAILED
    assert attempts(using) == [("shop.seed", 1, state)]
    assert len(left) == (0 if state == "failed" else refusals - 1)


@pytest.mark.usefixtures("unfenceable")
def test_deadline_that_passes_before_a_predecessor_is_fenced_is_no_failure(using: str) -> None:
    begin(seed(using))
    (result,) = run(seed(using), timeout=2.0)
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "timed_out")
    assert attempts(using) == [("shop.seed", 1, "running"), ("shop.seed", 2, "interrupted")]
