"""What each kind of routine promises: outside effects, no second try, and a person's decision."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, OperationalError, connections, transaction

from once import Routine, Run, content, interruption, ledger, record, signals
from once.databases import database
from once.databases.base import Database
from once.exceptions import BodyError
from once.models import Attempt, Completion, State
from once.record import Standing
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
    standings,
    take,
)
from tests.shop.models import Effect

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


def test_external_body_leaves_its_guard_held(using: str) -> None:
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
    ledger.close(begin(routine), State.LOST)
    outcomes = [run(routine)[0].outcome for _ in range(3)]
    assert outcomes == [Outcome.FAILED, Outcome.FAILED, Outcome.RAN]
    assert body.numbers == [2, 3, 4]
    assert len(body.keys) == 1


@pytest.mark.parametrize("make", [lost_connection, conflict])
def test_external_body_is_not_repeated_after_an_error_of_the_database(
    using: str, make: Callable[[str], OperationalError]
) -> None:
    body = Body(using, make(using))
    (result,) = run(seed(using, function=body, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert body.numbers == [1]


def test_external_body_may_lose_its_connection() -> None:
    def body() -> None:
        rows("default", "SELECT pg_terminate_backend(pg_backend_pid())")

    (result,) = run(seed("default", function=body, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert isinstance(result.error, OperationalError)
    assert attempts("default") == [("shop.seed", 1, "failed")]


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
    complete = ledger.complete
    errors = [conflict(using), lost_connection(using)]

    def disturbed(attempt: Attempt) -> None:
        complete(attempt)
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(ledger, "complete", disturbed)
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

    monkeypatch.setattr(ledger, "complete", refuse)
    body = Body(using)
    (result,) = run(seed(using, function=body, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert "IntegrityError: disk quota. What it did outside stays" in result.message
    assert body.numbers == [1]
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_recording_is_refused_to_who_was_taken_over_from(using: str) -> None:
    def body(run: Run) -> None:
        ledger.close(last(using), State.LOST)

    (result,) = run(seed(using, function=body, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert "Attempt 1 lost its right to commit" in result.message
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


HELD = "Held, since retry=False: find out what its last attempt did."


def held_in(using: str, kind: str, error: BaseException) -> tuple[Routine, Body]:
    """A routine that may not be tried again, with a body whose first call fails."""
    body = Body(using, error)
    routine = routine_of(kind, using, body, retry=False)
    (result,) = run(routine)
    assert result.outcome is Outcome.FAILED
    assert result.is_final
    return routine, body


def test_routine_without_retry_runs_once(using: str, kind: str) -> None:
    body = Body(using)
    routine = routine_of(kind, using, body, retry=False)
    assert [run(routine)[0].outcome for _ in range(2)] == [Outcome.RAN, Outcome.ALREADY_DONE]
    assert body.numbers == ([1, 1] if kind == "batched" else [1])


@pytest.mark.parametrize("make", [LookupError, conflict, lost_connection])
def test_routine_without_retry_is_held_after_a_failure(
    using: str, kind: str, make: Callable[[str], Exception]
) -> None:
    routine, body = held_in(using, kind, make(using))
    (result,) = run(routine)
    assert (result.outcome, result.is_held, result.is_done) == (Outcome.SKIPPED, True, False)
    assert result.message.startswith(HELD)
    assert "`manage.py once reset shop.seed` has it tried again" in result.message
    assert "`manage.py once run --fake shop.seed` records it as done" in result.message
    assert body.numbers == [1]
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_failure_of_a_routine_without_retry_says_that_it_is_held(using: str) -> None:
    (result,) = run(routine_of("external", using, Body(using, LookupError("x")), retry=False))
    assert "LookupError: x. What it did outside stays; the next attempt has" in result.message
    assert HELD in result.message


def test_routine_without_retry_is_held_after_its_process_died(using: str, kind: str) -> None:
    body = Body(using)
    routine = routine_of(kind, using, body, retry=False)
    begin(routine)
    (result,) = run(routine)
    assert (result.outcome, result.is_held) == (Outcome.SKIPPED, True)
    assert body.numbers == []
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "interrupted")]
    assert run(routine)[0].is_held
    assert [number for _, number, _ in attempts(using)] == [1, 2]


def test_routine_without_retry_is_known_to_be_held_before_anybody_tries(using: str) -> None:
    """Its process died: the record says that it runs, and the guard is free."""
    routine = seed(using, retry=False)
    begin(routine)
    found = record.read([routine])["shop.seed"]
    assert found.standing is Standing.OPEN
    assert record.is_held(routine, found)
    with database(using).guard(routine.name, 15) as guard:
        take(guard)
        assert not record.is_held(routine, found)


def test_routine_without_retry_is_held_after_it_was_ended(using: str, kind: str) -> None:
    routine = routine_of(kind, using, Body(using, KeyboardInterrupt()), retry=False)
    with pytest.raises(KeyboardInterrupt):
        run(routine)
    assert attempts(using) == [("shop.seed", 1, "interrupted")]
    assert run(routine)[0].is_held


def test_routine_without_retry_goes_on_after_an_attempt_that_called_no_body(
    using: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_first_guard(using, monkeypatch, "ping" if kind == "external" else "confirm")
    body = Body(using)
    (result,) = run(routine_of(kind, using, body, retry=False))
    assert result.outcome is Outcome.RAN
    assert set(body.numbers) == {2}
    assert attempts(using) == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


def test_routine_without_retry_whose_items_cannot_be_read_is_not_held(using: str) -> None:
    sources: list[Any] = [None, [1]]
    routine = seed(using, function=lambda batch: None, over=lambda: sources.pop(0), retry=False)
    assert [run(routine)[0].outcome for _ in range(2)] == [Outcome.FAILED, Outcome.RAN]


def test_held_routine_stops_those_that_come_after_it_and_no_other(using: str) -> None:
    routine, _ = held_in(using, "external", LookupError())
    held, behind, apart = run(
        routine, seed(using, "shop.behind", after=["shop.seed"]), seed(using, "shop.apart")
    )
    assert held.is_held
    assert behind.message == "Not tried, since shop.seed must be done before."
    assert apart.outcome is Outcome.RAN


def test_held_routine_of_a_higher_version_is_free(using: str) -> None:
    held_in(using, "external", LookupError())
    assert run(seed(using, version=2, atomic=False, retry=False))[0].outcome is Outcome.RAN


# A person's decision


def test_fake_of_a_held_routine_records_it(using: str, kind: str) -> None:
    routine, body = held_in(using, kind, LookupError())
    (result,) = run(routine, act=Act.FAKE, trigger="fake", user="ada", reason="sent by hand")
    assert result.outcome is Outcome.RAN
    assert body.numbers == [1]
    assert run(routine)[0].outcome is Outcome.ALREADY_DONE
    row = last(using)
    assert (row.number, row.state, row.trigger) == (2, "succeeded", "fake")
    assert (row.user, row.reason) == ("ada", "sent by hand")


def test_reset_of_a_held_routine_has_it_tried_again_under_the_same_key(
    using: str, kind: str
) -> None:
    routine, body = held_in(using, kind, LookupError())
    (result,) = run(routine, act=Act.RESET, trigger="reset", user="ada", reason="not sent")
    assert result.outcome is Outcome.RAN
    assert standings(routine) == {"shop.seed": Standing.OPEN}
    row = last(using)
    assert (row.number, row.state, row.trigger) == (2, "succeeded", "reset")
    assert (row.user, row.reason) == ("ada", "not sent")
    assert run(routine)[0].outcome is Outcome.RAN
    assert len(body.keys) == 1
    assert body.numbers[:2] == [1, 3]


def test_reset_of_a_routine_whose_process_died_has_it_tried_again(using: str, kind: str) -> None:
    body = Body(using)
    routine = routine_of(kind, using, body, retry=False)
    first = begin(routine)
    assert run(routine, act=Act.RETRY)[0].outcome is Outcome.RAN
    assert run(routine)[0].outcome is Outcome.RAN
    assert set(body.numbers) == {3}
    assert body.keys == {first.key}


def test_retry_leaves_alone_what_is_completed(using: str) -> None:
    """By another process, after a person looked and before they decided."""
    routine = seed(using)
    run(routine)
    assert run(routine, act=Act.RETRY)[0].outcome is Outcome.ALREADY_DONE
    assert standings(routine) == {"shop.seed": Standing.DONE}


def test_routine_that_fails_again_after_a_reset_is_held_again(using: str) -> None:
    body = Body(using, LookupError(), LookupError())
    routine = routine_of("external", using, body, retry=False)
    run(routine)
    run(routine, act=Act.RESET)
    assert run(routine)[0].outcome is Outcome.FAILED
    assert run(routine)[0].is_held
    assert body.numbers == [1, 3]


def test_reset_of_a_completed_routine_has_it_run_again_under_a_new_key(
    using: str, kind: str
) -> None:
    body = Body(using)
    routine = routine_of(kind, using, body)
    run(routine)
    run(routine, act=Act.RESET)
    assert standings(routine) == {"shop.seed": Standing.OPEN}
    assert run(routine)[0].outcome is Outcome.RAN
    calls = 2 if kind == "batched" else 1
    assert body.numbers == [1] * calls + [3] * calls
    assert len(body.keys) == 2


def test_reset_of_a_completed_routine_resets_this_completion_only(using: str) -> None:
    for name, version in [("shop.seed", 1), ("shop.seed", 2), ("shop.other", 2)]:
        run(seed(using, name, version=version))
    run(seed(using, version=2), act=Act.RESET)
    left = Completion.objects.using(using).order_by("routine").values_list("routine", "version")
    assert list(left) == [("shop.other", 2), ("shop.seed", 1)]


def batched(using: str, seen: list[int], fails_at: list[int], **options: Any) -> Routine:
    """Four batches of one item each; it fails at those in the list, each of them once."""

    def body(batch: list[int]) -> None:
        if batch[0] in fails_at:
            fails_at.remove(batch[0])
            raise LookupError
        seen.extend(batch)

    return seed(using, function=body, over=lambda: [1, 2, 3, 4], batch_size=1, **options)


@pytest.mark.parametrize("retry", [True, False], ids=["failed", "held"])
def test_reset_of_batches_that_are_not_completed_goes_on_where_they_stand(
    using: str, retry: bool
) -> None:
    seen: list[int] = []
    routine = batched(using, seen, [3], retry=retry)
    run(routine)
    run(routine, act=Act.RESET)
    run(routine)
    assert seen == [1, 2, 3, 4]
    assert last(using).resumed == 2


def test_reset_of_completed_batches_begins_at_the_start(using: str) -> None:
    seen: list[int] = []
    routine = batched(using, seen, [])
    run(routine)
    run(routine, act=Act.RESET)
    run(routine)
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4]
    assert (last(using).processed, last(using).resumed) == (4, 0)


def test_batches_that_fail_after_a_reset_go_on_after_the_new_ones(using: str) -> None:
    seen: list[int] = []
    fails_at: list[int] = []
    routine = batched(using, seen, fails_at)
    run(routine)
    run(routine, act=Act.RESET)
    fails_at += [1]
    run(routine)
    run(routine)
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4]
    assert last(using).resumed == 0


def test_fake_of_batches_under_way_completes_them(using: str) -> None:
    seen: list[int] = []
    routine = batched(using, seen, [3])
    run(routine)
    run(routine, act=Act.FAKE)
    assert run(routine)[0].outcome is Outcome.ALREADY_DONE
    assert seen == [1, 2]


def test_reset_ends_the_delay_of_starting_servers(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    routine = seed(using, function=Body(using, LookupError()))
    run(routine)
    assert run(routine, heeds_delay=True)[0].outcome is Outcome.SKIPPED
    run(routine, act=Act.RESET)
    assert run(routine, heeds_delay=True)[0].outcome is Outcome.RAN


def test_reset_does_not_wait_for_a_predecessor_or_a_migration(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = seed(using, "second", after=["first"])
    with transaction.atomic(using=using):
        ledger.complete(begin(second))
    monkeypatch.setattr("once.migrate.unapplied", lambda using: ["shop.0002"])
    results = run(seed(using, "first"), second, act=Act.RESET)
    assert [result.outcome for result in results] == [Outcome.RAN] * 2


def test_reset_of_what_a_higher_version_superseded_does_nothing(using: str) -> None:
    run(seed(using, version=2))
    (result,) = run(seed(using, version=1), act=Act.RESET)
    assert result.outcome is Outcome.ALREADY_DONE
    assert Completion.objects.using(using).count() == 1
    assert len(attempts(using)) == 1


# What a caller may ask for


def test_pass_that_keeps_going_leaves_out_what_is_behind_a_failure(using: str) -> None:
    results = run(
        seed(using, "bad", function=Body(using, LookupError())),
        seed(using, "behind", after=["bad"]),
        seed(using, "far_behind", after=["behind"]),
        seed(using, "apart"),
        keep_going=True,
    )
    assert [(result.routine.name, str(result.outcome)) for result in results] == [
        ("bad", "failed"),
        ("behind", "skipped"),
        ("far_behind", "skipped"),
        ("apart", "ran"),
    ]
    assert results[1].message == "Not tried, since bad must be done before."
    assert results[2].message == "Not tried, since behind must be done before."
    assert effects(using) == ["apart"]


def test_starting_server_leaves_out_what_failed_lately_and_goes_on(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    body = Body(using, LookupError("no mail server"))
    routine = seed(using, function=body)
    run(routine)
    first, behind, apart = run(
        routine,
        seed(using, "shop.behind", after=["shop.seed"]),
        seed(using, "shop.apart"),
        heeds_delay=True,
    )
    assert (first.outcome, first.is_held, first.timed_out) == (Outcome.SKIPPED, False, False)
    assert first.retry_in == pytest.approx(1000, abs=30)
    assert f"(pid {os.getpid()}) failed: LookupError: no mail server. Starting" in first.message
    assert first.message.endswith("`manage.py once run` tries at once.")
    assert first.has_failed
    assert behind.outcome is Outcome.SKIPPED
    assert apart.outcome is Outcome.RAN
    assert body.numbers == [1]


@pytest.mark.parametrize(
    ("delay", "state"),
    [("1000", State.LOST), ("1000", State.INTERRUPTED), ("0", State.FAILED)],
)
def test_starting_server_does_not_wait_without_cause(
    using: str, monkeypatch: pytest.MonkeyPatch, delay: str, state: State
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", delay)
    ledger.close(begin(seed(using)), state)
    assert run(seed(using), heeds_delay=True)[0].outcome is Outcome.RAN


def test_starting_server_that_finds_a_second_dead_process_waits(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead or alive is known only under the guard."""
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    ledger.close(begin(seed(using)), State.LOST)
    begin(seed(using))
    (result,) = run(seed(using), heeds_delay=True)
    assert result.outcome is Outcome.SKIPPED
    assert result.retry_in == pytest.approx(1000, abs=30)
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "running")]


def test_starting_server_does_not_wait_for_who_tries_what_failed_lately(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    ledger.close(begin(seed(using)), State.FAILED)
    with database(using).guard("shop.seed", 15) as guard:
        take(guard)
        (result,) = run(seed(using), heeds_delay=True, timeout=1)
    assert (result.outcome, result.timed_out) == (Outcome.SKIPPED, False)
    assert result.retry_in == pytest.approx(1000, abs=30)


def test_starting_server_that_waited_for_a_failure_leaves_it_out(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    routine = seed(using)
    guard = database(using).guard(routine.name, 15)

    def fail(**kwargs: Any) -> None:
        ledger.close(begin(routine), State.FAILED)
        guard.release()

    with guard, receiving(signals.waiting, fail):
        take(guard)
        (result,) = run(routine, heeds_delay=True)
    assert result.outcome is Outcome.SKIPPED
    assert result.retry_in == pytest.approx(1000, abs=30)
    assert effects(using) == []


def test_run_by_a_person_tries_at_once(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    routine = seed(using, function=Body(using, LookupError()))
    assert [run(routine)[0].outcome for _ in range(2)] == [Outcome.FAILED, Outcome.RAN]


def test_body_is_not_repeated_where_the_caller_says_so(using: str) -> None:
    body = Body(using, conflict(using))
    (result,) = run(seed(using, function=body), repeats=False)
    assert result.outcome is Outcome.FAILED
    assert result.is_final
    assert body.numbers == [1]


@pytest.mark.parametrize("scope", ["release", content("gone.csv")], ids=str)
def test_scope_that_lacks_what_it_needs_is_an_error_before_anything(using: str, scope: Any) -> None:
    """And none that passes for a lost guard, which would be waited for."""
    with pytest.raises(ImproperlyConfigured, match=r"'shop\.seed' has scope="):
        run(seed(using, "first"), seed(using, scope=scope))
    assert attempts(using) == []


# Told to end


@pytest.fixture
def _nothing_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_pending", None)
    monkeypatch.setattr(interruption, "_is_deferred", False)


@pytest.mark.usefixtures("_nothing_pending")
class TestToldToEnd:
    """A signal handler calls ``interruption.interrupt``; so do these bodies."""

    def test_atomic_body_ends_at_once_and_is_undone(self, using: str) -> None:
        def body() -> None:
            Effect.objects.using(using).create(name="undone")
            interruption.interrupt(KeyboardInterrupt())

        with pytest.raises(KeyboardInterrupt):
            run(seed(using, function=body))
        assert effects(using) == []
        assert attempts(using) == [("shop.seed", 1, "interrupted")]

    def test_batch_in_hand_comes_to_its_end(self, using: str) -> None:
        seen: list[int] = []

        def body(batch: list[int]) -> None:
            if not seen:
                interruption.interrupt(KeyboardInterrupt())
            seen.extend(batch)
            Effect.objects.using(using).create(name=f"{batch}")

        routine = seed(using, function=body, over=lambda: [1, 2], batch_size=1)
        with pytest.raises(KeyboardInterrupt):
            run(routine)
        assert effects(using) == ["[1]"]
        assert attempts(using) == [("shop.seed", 1, "interrupted")]
        run(routine)
        assert seen == [1, 2]

    def test_batches_without_retry_are_not_held_by_an_end_between_them(self, using: str) -> None:
        def body(batch: list[int], run: Run) -> None:
            if run.attempt == 1:
                interruption.interrupt(KeyboardInterrupt())

        routine = seed(using, function=body, over=lambda: [1, 2], batch_size=1, retry=False)
        with pytest.raises(KeyboardInterrupt):
            run(routine)
        assert standings(routine) == {"shop.seed": Standing.OPEN}

    def test_external_body_comes_to_its_end_and_is_recorded(self, using: str) -> None:
        def body() -> None:
            interruption.interrupt(KeyboardInterrupt())
            Effect.objects.using(using).create(name="sent")

        routine = seed(using, function=body, atomic=False)
        with pytest.raises(KeyboardInterrupt):
            run(routine)
        assert effects(using) == ["sent"]
        assert attempts(using) == [("shop.seed", 1, "succeeded")]

    @pytest.mark.parametrize("kind", ["batched", "external"])
    def test_check_of_the_body_ends_it(self, using: str, kind: str) -> None:
        def body(run: Run) -> None:
            interruption.interrupt(KeyboardInterrupt())
            run.check()
            pytest.fail("the check did not raise")

        with pytest.raises(KeyboardInterrupt):
            run(routine_of(kind, using, body))
        assert attempts(using) == [("shop.seed", 1, "interrupted")]

    def test_pass_goes_no_further(self, using: str) -> None:
        def body() -> None:
            interruption.interrupt(KeyboardInterrupt())
            raise LookupError

        with pytest.raises(KeyboardInterrupt):
            run(seed(using, function=body, atomic=False), seed(using, "next"))
        assert attempts(using) == [("shop.seed", 1, "failed")]


@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "no answer"])
def test_recording_without_an_answer_is_fenced_before_it_is_repeated(
    using: str, is_answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = ledger.complete
    done: list[str] = []
    errors = [lost_connection(using)]

    def fail_first(attempt: Attempt) -> None:
        done.append("complete")
        if errors:
            raise errors.pop()
        complete(attempt)

    def end_work(self: object, name: str) -> int:
        done.append(f"end work of {name}")
        if not is_answered:
            raise lost_connection(using)
        return 0

    monkeypatch.setattr(ledger, "complete", fail_first)
    monkeypatch.setattr(type(database(using)), "end_work", end_work)
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

    monkeypatch.setattr(ledger, "complete", fail)
    monkeypatch.setattr(type(database(using)), "end_work", refuse)
    (result,) = run(seed(using, function=lambda: None, atomic=False))
    assert result.outcome is Outcome.FAILED
    assert "no reason that may pass" in result.message


def test_laps_of_batches_add_up(using: str) -> None:
    heard: list[tuple[float, float]] = []
    routine = routine_of("batched", using, lambda run: None)
    with receiving(signals.progressed, lambda seconds, lap, **_: heard.append((seconds, lap))):
        run(routine)
    assert heard
    assert all(lap > 0 for _, lap in heard)
    assert sum(lap for _, lap in heard) == pytest.approx(heard[-1][0])
