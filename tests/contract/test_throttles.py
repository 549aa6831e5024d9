"""Throttles of a batched routine: when they are asked, what is shown of them, and what they see."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from once import Routine, Run, throttles
from once.databases import database
from once.databases.transactions import TransactionState
from once.engine import shutdown
from once.exceptions import LockLost, ThrottleError
from once.models import Attempt, State, Wish
from once.record import wishes
from once.results import Outcome, Reason, Result
from once.signals import throttled
from tests.shop.models import Effect
from tests.support import attempts, beside, effects, last, receiving, rows, run
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def fill(using: str, *throttle: Callable[[Run], Any], **options: Any) -> Routine:
    """Four items in batches of two, which leave effects."""

    def body(batch: list[int]) -> None:
        Effect.objects.using(using).create(name=str(batch[0]))

    return Routine(
        function=body,
        name="shop.fill",
        using=using,
        over=lambda: [1, 2, 3, 4],
        batch_size=2,
        throttle=throttle,
        **options,
    )


class Answers:
    """A throttle that says one thing after the other, and 0 at last."""

    def __init__(self, using: str, *seconds: Any, name: str = "slow") -> None:
        self.__name__ = name
        self.using = using
        self.seconds = [*seconds]
        #: For each time that it was asked, the effects, and what was shown of it before.
        self.asked: list[tuple[list[str], str]] = []

    def __call__(self, run: Run) -> Any:
        self.asked.append((effects(self.using), last(self.using).throttled))
        return self.seconds.pop(0) if self.seconds else 0


def failed(result: Result) -> str:
    assert result.outcome is Outcome.FAILED
    assert isinstance(result.error, ThrottleError)
    return result.message


def test_throttle_is_asked_before_each_batch_until_it_says_0(using: str) -> None:
    slow = Answers(using, 0.01, 0.01, 0, 0.02)
    (result,) = run(fill(using, slow))
    assert result.outcome is Outcome.RAN
    assert slow.asked == [
        ([], ""),
        ([], "slow says 0.01 s"),
        ([], "slow says 0.01 s"),
        (["1"], ""),
        (["1"], "slow says 0.02 s"),
        (["1", "3"], ""),
    ]
    assert last(using).throttled == ""
    assert attempts(using) == [("shop.fill", 1, "succeeded")]


def test_throttle_is_asked_again_after_a_second_at_the_latest(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("once.engine.pacing.time.sleep", slept.append)
    (result,) = run(fill(using, Answers(using, 60, 0.5)))
    assert result.outcome is Outcome.RAN
    assert slept == [1, 0.5]


def test_longest_wait_holds_and_is_told(using: str) -> None:
    heard: list[tuple[object, ...]] = []

    def hear(sender: Routine, attempt: Attempt, reason: str, waited: float, **_: Any) -> None:
        heard.append((sender.name, attempt.throttled, reason, waited >= 0))

    throttle = [
        Answers(using, 0.01, 0.02, 0, name="a"),
        Answers(using, 0.03, 0, 0.01, name="b"),
    ]
    with receiving(throttled, hear):
        run(fill(using, *throttle))
    assert [reason for _, _, reason, _ in heard] == [
        "b says 0.03 s",
        "a says 0.02 s",
        "b says 0.01 s",
    ]
    assert {each[:1] + each[3:] for each in heard} == {("shop.fill", True)}
    assert all(shown == reason for _, shown, reason, _ in heard)


def test_no_transaction_is_open_while_a_throttle_is_asked_and_while_it_waits(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = database(using)
    seen: list[object] = []

    def look(run: Run) -> float:
        rows(using, "SELECT 1")
        seen.append((connections[using].in_atomic_block, here.transaction()))
        return 0.01 if len(seen) == 1 else 0

    def sleep(seconds: float) -> None:
        is_open = here.is_server and connections[using].connection is not None
        seen.append("open" if is_open else "closed")  # SQLite in memory is never closed

    monkeypatch.setattr("once.engine.pacing.time.sleep", sleep)
    run(fill(using, look))
    free = (False, TransactionState.NONE)
    assert seen == [free, "closed", free, free, free]


def test_transaction_that_a_throttle_leaves_open_is_not_committed(using: str) -> None:
    def careless(run: Run) -> float:
        connections[using].set_autocommit(False)
        Effect.objects.using(using).create(name="careless")
        return 0.01

    (result,) = run(fill(using, careless))
    assert "left a transaction of database" in result.message
    assert effects(using) == []


def test_error_of_a_throttle_fails_the_attempt_with_its_name(using: str) -> None:
    def broken(run: Run) -> float:
        raise LookupError("no such metric")

    (result,) = run(fill(using, broken))
    assert failed(result).startswith("The throttle broken failed. LookupError: no such metric. Its")
    assert (last(using).state, effects(using)) == (State.FAILED, [])
    assert last(using).error.startswith("The throttle broken failed. LookupError")
    assert "in broken" in last(using).error  # the traceback


def test_error_of_a_later_question_leaves_the_batches_before(using: str) -> None:
    slow = Answers(using, 0, "soon")
    (result,) = run(fill(using, slow))
    assert "throttle slow returned 'soon', which is no number of seconds" in failed(result)
    assert effects(using) == ["1"]
    assert run(fill(using))[0].outcome is Outcome.RAN
    assert effects(using) == ["1", "3"]


@pytest.mark.parametrize("value", [None, "1", -1, float("nan"), True, 1e6])
def test_answer_of_a_throttle_must_be_a_number_of_seconds(using: str, value: object) -> None:
    (result,) = run(fill(using, lambda run: value))
    assert "Have it return 0 where nothing is in the way" in failed(result)


def test_lock_that_is_lost_while_a_throttle_waits_ends_the_attempt(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def slow(run: Run) -> float:
        asked.append(run.attempt)
        if len(asked) == 3:
            lost.append(True)
        return 0.01 if run.attempt == 1 else 0

    lost: list[bool] = []
    here = type(database(using))
    make = here.lock

    def lock(self: Any, *args: Any) -> Any:
        made = make(self, *args)
        check = made.check

        def check_or_lose() -> None:
            if lost:
                lost.clear()
                raise LockLost("evicted")
            check()

        monkeypatch.setattr(made, "check", check_or_lose)
        return made

    monkeypatch.setattr(here, "lock", lock)
    run(fill(using, slow))
    assert asked[:4] == [1, 1, 1, 2]
    assert [state for *_, state in attempts(using)] == ["interrupted", "succeeded"]


def test_run_check_in_a_throttle_is_no_error_of_it(using: str) -> None:
    def slow(run: Run) -> float:
        if run.attempt == 1:
            raise LockLost("evicted")
        return 0

    run(fill(using, slow))
    assert [state for *_, state in attempts(using)] == ["interrupted", "succeeded"]


def test_signal_ends_a_wait_for_a_throttle(using: str) -> None:
    def slow(run: Run) -> float:
        signal.raise_signal(signal.SIGTERM)
        return 3600

    with pytest.raises(shutdown.Signalled), shutdown.handled(signal.SIGTERM):
        run(fill(using, slow))
    assert attempts(using) == [("shop.fill", 1, "interrupted")]
    assert run(fill(using))[0].outcome is Outcome.RAN


def test_pause_ends_a_wait_for_a_throttle(using: str) -> None:
    def slow(run: Run) -> float:
        wishes.add(using, "shop.fill", Wish.Kind.PAUSE, user="ann", reason="")
        return 0.01

    (result,) = run(fill(using, slow))
    assert result.reason is Reason.PAUSED
    assert attempts(using) == [("shop.fill", 1, "interrupted")]


def test_throttle_of_any_name_is_recorded(using: str) -> None:
    slow = Answers(using, 0.01, name="langsam\x00\n" + "é" * 300)
    (result,) = run(fill(using, slow))
    assert result.outcome is Outcome.RAN
    _, (_, shown), *_ = slow.asked
    assert shown.startswith("langsam\\x00\\n\\xe9")
    assert shown.endswith("\\xe9 says 0.01 s")
    assert len(shown) < 820


def test_batches_of_a_failing_half_say_nothing_of_the_size(using: str) -> None:
    sizes: list[int] = []

    def body(batch: list[int]) -> None:
        sizes.append(len(batch))
        if 29 in batch:
            raise LookupError

    routine = Routine(
        function=body,
        name="shop.fill",
        using=using,
        over=lambda: list(range(60)),
        batch_size=100,
        batch_seconds=60,
        max_errors=1,
    )
    (result,) = run(routine)
    assert result.outcome is Outcome.RAN
    # Of a half that must fail, because the other half did not, only its own halves are tried.
    assert sizes == [10, 20, 10, 5, 2, 1, 1, 1, 20, 10]


# The throttles that are shipped


@contextmanager
def waiting(sql: str) -> Iterator[None]:
    """A context in which a session has something locked, and another one waits for it."""
    taken, wanting = (connections["default"].copy() for _ in range(2))

    def want() -> None:
        rows_of(wanting, sql)
        wanting.close()

    rows_of(taken, f"BEGIN; {sql}")
    with beside(want) as answer:
        try:
            yield
        finally:
            taken.close()
            answer.result()


def rows_of(session: Any, sql: str) -> None:
    session.inc_thread_sharing()
    with session.cursor() as cursor:
        cursor.execute(sql)


def asked(throttle: Any, using: str = "default") -> float:
    answer: float = throttle(Run(using=using, attempt=1, key="k", check=lambda: None))
    return answer


@pytest.mark.postgresql
def test_sessions_that_wait_for_locks_are_counted() -> None:
    Effect.objects.create(name="row")
    with waiting("UPDATE shop_effect SET name = 'other'"):
        wait_until(lambda: asked(throttles.lock_waits(0.1)) == 1)
        assert asked(throttles.lock_waits(0.1, sessions=2)) == 0
        assert asked(throttles.lock_waits(3600)) == 0
    assert asked(throttles.lock_waits(0.1)) == 0


@pytest.mark.postgresql
def test_sessions_that_wait_for_advisory_locks_are_not() -> None:
    with waiting("SELECT pg_advisory_xact_lock(1)"):
        waits = "SELECT 1 FROM pg_locks WHERE waitstart < now() - interval '0.2 s'"
        wait_until(lambda: rows("default", waits))
        assert asked(throttles.lock_waits(0.1)) == 0


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("throttle", "words"),
    [
        (throttles.replica_lag(), "No replica is connected to the server of database 'default'"),
        (throttles.replica_lag(replica="default"), "'default' is no replica of it. Pass the alias"),
        (throttles.replica_lag(replica="sqlite"), "'sqlite' is no replica of it"),
        (throttles.wal_archiving(), "archives no WAL (archive_mode is off). Remove wal_archiving"),
    ],
    ids=["no replica", "no replica's alias", "another kind", "no archive"],
)
def test_what_a_throttle_cannot_see_fails_the_routine(throttle: Any, words: str) -> None:
    (result,) = run(fill("default", throttle))
    assert f"The throttle {throttle.__name__} failed. " in failed(result)
    assert words in result.message
    assert effects("default") == []


@pytest.mark.postgresql
def test_role_that_may_not_see_the_archive_is_told_the_grant() -> None:
    rows("default", "CREATE ROLE once_blind")
    try:
        rows("default", "SET ROLE once_blind")
        with pytest.raises(ThrottleError, match="to be archived: GRANT pg_monitor TO "):
            asked(throttles.wal_archiving())
    finally:
        rows("default", "RESET ROLE")
        rows("default", "DROP ROLE once_blind")


@pytest.mark.parametrize(
    "throttle", [throttles.replica_lag(), throttles.lock_waits(), throttles.wal_archiving()]
)
def test_database_that_a_throttle_is_not_for_is_an_error(throttle: Any) -> None:
    with pytest.raises(ThrottleError, match=r"'sqlite' is SQLite, .* from throttle="):
        asked(throttle, "sqlite")
