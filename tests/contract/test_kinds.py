"""What each kind of routine promises of the transaction, the lock and the record."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connections, transaction

from once import Routine, Run, signals
from once.databases import database
from once.databases.base import Database
from once.engine import shutdown
from once.exceptions import BodyError, DatabaseUnavailable
from once.models import Attempt, Completion, State
from once.record import history, recorder
from once.record.standing import Standing
from once.results import Outcome
from tests.shop.models import Effect
from tests.support import (
    attempts,
    begin,
    conflict,
    effects,
    last,
    lost_connection,
    receiving,
    rows,
    run,
    seed,
    standings,
    take,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

KINDS = ["atomic", "batched", "external"]


def routine_of(kind: str, using: str, body: Callable[[Run], None], **options: Any) -> Routine:
    """A routine of that kind; batched, it calls the body once for each of two batches."""
    if kind != "batched":
        return seed(using, function=body, atomic=kind == "atomic", **options)

    def over_batch(batch: list[int], run: Run) -> None:
        body(run)

    return seed(using, function=over_batch, over=lambda: [1, 2], batch_size=1, **options)


class Body:
    """A body that leaves an effect, then raises what it is told for each call."""

    def __init__(self, using: str, *errors: BaseException | None) -> None:
        self.using = using
        self.errors = list(errors)
        self.runs: list[Run] = []

    def __call__(self, run: Run) -> None:
        self.runs.append(run)
        Effect.objects.using(self.using).create(name=f"call {len(self.runs)}")
        if self.errors and (error := self.errors.pop(0)):
            raise error

    @property
    def keys(self) -> set[str]:
        return {one.key for one in self.runs}

    @property
    def numbers(self) -> list[int]:
        return [one.attempt for one in self.runs]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each way to commit in turn."""
    found: str = request.param
    return found


# External


def test_external_body_runs_outside_of_any_transaction(using: str) -> None:
    seen: list[tuple[bool, bool]] = []

    def body() -> None:
        connection = connections[using]
        seen.append((connection.in_atomic_block, connection.get_autocommit()))

    (result,) = run(seed(using, function=body, atomic=False))
    assert (result.outcome, result.message) == (Outcome.RAN, "")
    assert seen == [(False, True)]
    assert attempts(using) == [("shop.seed", 1, "succeeded")]


def test_external_body_finds_its_connection_closed() -> None:
    found: list[object] = []
    connections["default"].ensure_connection()
    run(seed("default", function=lambda: found.append(connections["default"].connection)))
    run(
        seed(
            "default",
            "shop.external",
            function=lambda: found.append(connections["default"].connection),
            atomic=False,
        )
    )
    assert found[0] is not None
    assert found[1] is None


def test_external_body_leaves_its_lock_held(using: str) -> None:
    """And no row of the record locked, so that a successor can take over at once."""
    holders: list[object] = []
    run(
        seed(
            using,
            function=lambda: holders.append(database(using).holder("shop.seed")),
            atomic=False,
        )
    )
    assert holders[0] is not None


def test_external_effects_of_a_failed_attempt_stay(using: str) -> None:
    body = Body(using, LookupError("no mail server"))
    (result,) = run(seed(using, function=body, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert result.is_final
    assert result.message == (
        "LookupError: no mail server. What it did outside stays; the next attempt has the same "
        "key. Fix the cause and run this again."
    )
    assert effects(using) == ["call 1"]
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_external_attempts_share_a_key_and_count_up(using: str) -> None:
    body = Body(using, LookupError(), LookupError())
    routine = seed(using, function=body, atomic=False)
    recorder.close(begin(routine), State.LOST)
    outcomes = [run(routine)[0].outcome for _ in range(3)]
    assert outcomes == [Outcome.FAILED, Outcome.FAILED, Outcome.RAN]
    assert body.numbers == [2, 3, 4]
    assert len(body.keys) == 1


def test_external_body_is_not_repeated_after_a_conflict(using: str) -> None:
    body = Body(using, conflict(using))
    (result,) = run(seed(using, function=body, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert body.numbers == [1]


@pytest.mark.postgresql
def test_external_body_that_loses_its_connection_is_not_repeated_and_no_failure() -> None:
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        rows("default", "SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DatabaseUnavailable, match="What it did outside stays") as unavailable:
        run(seed("default", function=body, atomic=False))
    assert isinstance(unavailable.value.__cause__, OperationalError)
    assert calls == [1]
    assert attempts("default") == [("shop.seed", 1, "interrupted")]


@pytest.mark.postgresql
def test_recording_of_outside_effects_is_repeated_on_a_fresh_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions: list[object] = []
    here = type(database("default"))
    sync = here.sync

    def cut_off_first(self: Database) -> None:
        sessions.append(self.connection.connection)
        if len(sessions) == 1:
            rows("default", "SELECT pg_terminate_backend(pg_backend_pid())")
        sync(self)

    monkeypatch.setattr(here, "sync", cut_off_first)
    body = Body("default")
    (result,) = run(seed("default", function=body, atomic=False))
    assert result.outcome is Outcome.RAN
    assert body.numbers == [1]
    assert len(set(sessions)) == 2
    assert attempts("default") == [("shop.seed", 1, "succeeded")]


@pytest.mark.parametrize("retry", [True, False])
def test_recording_of_outside_effects_is_repeated_where_another_transaction_was_in_the_way(
    using: str, monkeypatch: pytest.MonkeyPatch, retry: bool
) -> None:
    complete = recorder.complete
    errors = [conflict(using), lost_connection(using)]

    def disturbed(attempt: Attempt) -> None:
        complete(attempt)
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(recorder, "complete", disturbed)
    body = Body(using)
    (result,) = run(seed(using, function=body, atomic=False, retry=retry))
    assert result.outcome is Outcome.RAN
    assert body.numbers == [1]
    assert Completion.objects.using(using).count() == 1


def test_recording_that_fails_for_another_reason_says_what_stays(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(attempt: Attempt) -> None:
        raise IntegrityError("disk quota")

    monkeypatch.setattr(recorder, "complete", refuse)
    body = Body(using)
    with pytest.raises(
        DatabaseUnavailable, match=r"IntegrityError: disk quota\. What it did outside stays"
    ):
        run(seed(using, function=body, atomic=False), patience=0)
    assert body.numbers == [1]
    assert attempts(using) == [("shop.seed", 1, "interrupted")]


def test_recording_is_refused_to_who_was_taken_over_from(using: str) -> None:
    def body(run: Run) -> None:
        recorder.close(last(using), State.LOST)

    (result,) = run(seed(using, function=body, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert "attempt 1 lost its right to commit" in result.message
    assert "What it did outside stays" in result.message
    assert attempts(using) == [("shop.seed", 1, "lost")]
    assert not Completion.objects.using(using).exists()


def test_external_body_that_leaves_a_transaction_open_is_an_error() -> None:
    connections["default"].close()

    def body() -> None:
        transaction.set_autocommit(False)
        Effect.objects.create(name="undone")

    (result,) = run(seed("default", function=body, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert isinstance(result.error, BodyError)
    assert "left a transaction open, and what it did there is undone" in result.message
    assert effects("default") == []
    assert standings(seed("default")) == {"shop.seed": Standing.OPEN}


def leave_atomic() -> None:
    transaction.atomic().__enter__()


def leave_autocommit_off() -> None:
    transaction.set_autocommit(False)


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("leave", [leave_atomic, leave_autocommit_off])
def test_transaction_that_an_external_body_left_open_takes_no_record_with_it(
    leave: Callable[[], None], fails: bool
) -> None:
    def body() -> None:
        leave()
        Effect.objects.create(name="undone")
        if fails:
            raise LookupError

    connections["default"].close()
    left = seed("default", "left", function=body, atomic=False)
    results = run(left, seed("default", "next"), keep_going=True)
    assert [result.outcome for result in results] == [Outcome.FAILED, Outcome.RAN]
    assert attempts("default") == [("left", 1, "failed"), ("next", 1, "succeeded")]
    assert effects("default") == ["next"]


@pytest.mark.parametrize("code", [0, 3, None])
def test_exit_of_an_external_body_is_a_failure(using: str, code: int | None) -> None:
    (result,) = run(seed(using, function=Body(using, SystemExit(code)), atomic=False))
    assert result.outcome is Outcome.FAILED
    assert isinstance(result.error, BodyError)
    assert f"sys.exit({code})" in result.message
    assert effects(using) == ["call 1"]
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_async_external_body_runs_outside_of_any_transaction(using: str) -> None:
    async def body(run: Run) -> None:
        await Effect.objects.using(using).acreate(name="kept")
        raise LookupError

    run(seed(using, function=body, atomic=False))
    assert effects(using) == ["kept"]


# retry=False


def test_routine_without_retry_is_held_after_its_process_died(using: str, kind: str) -> None:
    body = Body(using)
    routine = routine_of(kind, using, body, retry=False)
    begin(routine)
    (result,) = run(routine)
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "held")
    assert body.numbers == []
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "interrupted")]
    assert run(routine)[0].reason == "held"
    assert [number for _, number, _ in attempts(using)] == [1, 2]


def test_routine_without_retry_is_known_to_be_held_before_anybody_tries(using: str) -> None:
    """Its process died: the record says that it runs, and the lock is free."""
    routine = seed(using, retry=False)
    begin(routine)
    found = history.read([routine])["shop.seed"]
    assert found.standing is Standing.OPEN
    assert history.held(using, [routine], {routine.name: found}) == [routine]
    with database(using).lock(routine.name, 15) as lock:
        take(lock)
        assert history.held(using, [routine], {routine.name: found}) == []


# What a caller may ask for


@pytest.mark.parametrize("using", ["default"])
def test_body_is_not_repeated_where_the_caller_says_so(using: str) -> None:
    body = Body(using, conflict(using))
    (result,) = run(seed(using, function=body), trigger="call")
    assert result.outcome is Outcome.FAILED
    assert result.is_final
    assert body.numbers == [1]


# Told to end


@pytest.fixture
def _nothing_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "_now", shutdown._State())


@pytest.mark.usefixtures("_nothing_pending")
class TestToldToEnd:
    """A signal handler calls ``interruption.interrupt``; so do these bodies."""

    def test_atomic_body_ends_at_once_and_is_undone(self, using: str) -> None:
        def body() -> None:
            Effect.objects.using(using).create(name="undone")
            shutdown.interrupt(KeyboardInterrupt())

        with pytest.raises(KeyboardInterrupt):
            run(seed(using, function=body))
        assert effects(using) == []
        assert attempts(using) == [("shop.seed", 1, "interrupted")]

    def test_atomic_body_whose_clean_up_fails_is_interrupted_all_the_same(self, using: str) -> None:
        """As under gevent, where the driver may fail while it cancels the statement in hand."""

        def body() -> None:
            try:
                shutdown.interrupt(KeyboardInterrupt())
            finally:
                raise LookupError

        with pytest.raises(KeyboardInterrupt) as raised:
            run(seed(using, function=body))
        assert isinstance(raised.value.__context__, LookupError)
        assert attempts(using) == [("shop.seed", 1, "interrupted")]

    def test_batch_in_hand_comes_to_its_end(self, using: str) -> None:
        seen: list[int] = []

        def body(batch: list[int]) -> None:
            if not seen:
                shutdown.interrupt(KeyboardInterrupt())
            seen.extend(batch)
            Effect.objects.using(using).create(name=f"{batch}")

        routine = seed(using, function=body, over=lambda: [1, 2], batch_size=1)
        with pytest.raises(KeyboardInterrupt), shutdown.handled():
            run(routine)
        assert effects(using) == ["[1]"]
        assert attempts(using) == [("shop.seed", 1, "interrupted")]
        run(routine)
        assert seen == [1, 2]

    def test_batches_without_retry_are_not_held_by_an_end_between_them(self, using: str) -> None:
        def body(batch: list[int], run: Run) -> None:
            if run.attempt == 1:
                shutdown.interrupt(KeyboardInterrupt())

        routine = seed(using, function=body, over=lambda: [1, 2], batch_size=1, retry=False)
        with pytest.raises(KeyboardInterrupt):
            run(routine)
        assert standings(routine) == {"shop.seed": Standing.OPEN}

    def test_external_body_comes_to_its_end_and_is_recorded(self, using: str) -> None:
        def body() -> None:
            shutdown.interrupt(KeyboardInterrupt())
            Effect.objects.using(using).create(name="sent")

        routine = seed(using, function=body, atomic=False)
        with pytest.raises(KeyboardInterrupt):
            run(routine)
        assert effects(using) == ["sent"]
        assert attempts(using) == [("shop.seed", 1, "succeeded")]

    @pytest.mark.parametrize("kind", ["batched", "external"])
    def test_check_of_the_body_ends_it(self, using: str, kind: str) -> None:
        def body(run: Run) -> None:
            shutdown.interrupt(KeyboardInterrupt())
            run.check()
            pytest.fail("the check did not raise")

        with pytest.raises(KeyboardInterrupt):
            run(routine_of(kind, using, body))
        assert attempts(using) == [("shop.seed", 1, "interrupted")]

    def test_pass_goes_no_further(self, using: str) -> None:
        def body() -> None:
            shutdown.interrupt(KeyboardInterrupt())
            raise LookupError

        with pytest.raises(KeyboardInterrupt):
            run(seed(using, function=body, atomic=False), seed(using, "next"))
        assert attempts(using) == [("shop.seed", 1, "failed")]


@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "no answer"])
def test_recording_without_an_answer_is_fenced_before_it_is_repeated(
    using: str, is_answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = recorder.complete
    done: list[str] = []
    errors = [lost_connection(using)]

    def fail_first(attempt: Attempt) -> None:
        done.append("complete")
        if errors:
            raise errors.pop()
        complete(attempt)

    def terminate_backend(self: object, name: str) -> int:
        done.append(f"end work of {name}")
        if not is_answered:
            raise lost_connection(using)
        return 0

    monkeypatch.setattr(recorder, "complete", fail_first)
    monkeypatch.setattr(type(database(using)), "terminate_backend", terminate_backend)
    (result,) = run(seed(using, function=lambda: done.append("body"), atomic=False))
    assert result.outcome is Outcome.RAN
    assert done == ["body", "complete", f"end work of {last(using).pk}", "complete"]


def test_recording_whose_own_session_cannot_be_ended_fails(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(attempt: Attempt) -> None:
        raise lost_connection(using)

    def refuse(self: object, name: str) -> int:
        raise IntegrityError("no reason that may pass")

    monkeypatch.setattr(recorder, "complete", fail)
    monkeypatch.setattr(type(database(using)), "terminate_backend", refuse)
    with pytest.raises(DatabaseUnavailable, match="no reason that may pass"):
        run(seed(using, function=lambda: None, atomic=False), patience=0.5)


def test_laps_of_batches_add_up(using: str) -> None:
    heard: list[tuple[float, float]] = []
    routine = routine_of("batched", using, lambda run: None)
    with receiving(signals.progressed, lambda seconds, lap, **_: heard.append((seconds, lap))):
        run(routine)
    assert heard
    assert all(lap > 0 for _, lap in heard)
    assert sum(lap for _, lap in heard) == pytest.approx(heard[-1][0])
