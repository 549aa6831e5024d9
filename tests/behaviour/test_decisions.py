"""No second try without a person, and what comes of the decision."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from once import Routine, content, signals
from once.databases import database
from once.models import Completion, State
from once.record import recorder
from once.record.standing import Standing
from once.results import Outcome
from tests.contract.test_kinds import Body, kind, routine_of
from tests.support import (
    attempts,
    begin,
    conflict,
    effects,
    lacking_migrations,
    last,
    lose_first_lock,
    receiving,
    run,
    seed,
    standings,
    take,
)

__all__ = ["kind"]

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


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


@pytest.mark.parametrize("make", [LookupError, conflict])
def test_routine_without_retry_is_held_after_a_failure(
    using: str, kind: str, make: Callable[[str], Exception]
) -> None:
    routine, body = held_in(using, kind, make(using))
    (result,) = run(routine)
    assert (result.outcome, result.reason, result.is_done) == (Outcome.SKIPPED, "held", False)
    assert result.message.startswith(HELD)
    assert "`manage.py once reset shop.seed` has it tried again" in result.message
    assert "`manage.py once run --fake shop.seed` records it as done" in result.message
    assert body.numbers == [1]
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_failure_of_a_routine_without_retry_says_that_it_is_held(using: str) -> None:
    (result,) = run(routine_of("external", using, Body(using, LookupError("x")), retry=False))
    assert "LookupError: x. What it did outside stays; the next attempt has" in result.message
    assert HELD in result.message


def test_routine_without_retry_is_held_after_it_was_ended(using: str, kind: str) -> None:
    routine = routine_of(kind, using, Body(using, KeyboardInterrupt()), retry=False)
    with pytest.raises(KeyboardInterrupt):
        run(routine)
    assert attempts(using) == [("shop.seed", 1, "interrupted")]
    assert run(routine)[0].reason == "held"


def test_routine_without_retry_goes_on_after_an_attempt_that_called_no_body(
    using: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_first_lock(using, monkeypatch, "ping" if kind == "external" else "confirm")
    body = Body(using)
    (result,) = run(routine_of(kind, using, body, retry=False))
    assert result.outcome is Outcome.RAN
    assert set(body.numbers) == {2}
    assert attempts(using) == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


def test_routine_without_retry_whose_items_cannot_be_read_is_not_held(using: str) -> None:
    sources: list[Any] = [None, [1]]
    routine = seed(using, function=lambda batch: None, over=lambda: sources.pop(0), retry=False)
    failed, again = [run(routine)[0] for _ in range(2)]
    assert (failed.outcome, again.outcome) == (Outcome.FAILED, Outcome.RAN)
    assert HELD not in failed.message


def test_held_routine_stops_those_that_come_after_it_and_no_other(using: str) -> None:
    routine, _ = held_in(using, "external", LookupError())
    held, behind, apart = run(
        routine, seed(using, "shop.behind", after=["shop.seed"]), seed(using, "shop.apart")
    )
    assert held.reason == "held"
    assert behind.message == "Not tried, since shop.seed must be done before."
    assert apart.outcome is Outcome.RAN


def test_held_routine_of_a_higher_version_is_free(using: str) -> None:
    held_in(using, "external", LookupError())
    assert run(seed(using, version=2, atomic=False, retry=False))[0].outcome is Outcome.RAN


# A person's decision


def test_fake_of_a_held_routine_records_it(using: str, kind: str) -> None:
    routine, body = held_in(using, kind, LookupError())
    (result,) = run(routine, trigger="fake", user="ada", reason="sent by hand")
    assert result.outcome is Outcome.RECORDED
    assert body.numbers == [1]
    assert run(routine)[0].outcome is Outcome.ALREADY_DONE
    row = last(using)
    assert (row.number, row.state, row.trigger) == (2, "succeeded", "fake")
    assert (row.user, row.reason) == ("ada", "sent by hand")


def test_reset_of_a_held_routine_has_it_tried_again_under_the_same_key(
    using: str, kind: str
) -> None:
    routine, body = held_in(using, kind, LookupError())
    (result,) = run(routine, trigger="reset", even_done=True, user="ada", reason="not sent")
    assert result.outcome is Outcome.RECORDED
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
    assert run(routine, trigger="reset")[0].outcome is Outcome.RECORDED
    assert run(routine)[0].outcome is Outcome.RAN
    assert set(body.numbers) == {3}
    assert body.keys == {first.key}


def test_retry_leaves_alone_what_is_completed(using: str) -> None:
    """By another process, after a person looked and before they decided."""
    routine = seed(using)
    run(routine)
    assert run(routine, trigger="reset")[0].outcome is Outcome.ALREADY_DONE
    assert standings(routine) == {"shop.seed": Standing.DONE}


def test_routine_that_fails_again_after_a_reset_is_held_again(using: str) -> None:
    body = Body(using, LookupError(), LookupError())
    routine = routine_of("external", using, body, retry=False)
    run(routine)
    run(routine, trigger="reset", even_done=True)
    assert run(routine)[0].outcome is Outcome.FAILED
    assert run(routine)[0].reason == "held"
    assert body.numbers == [1, 3]


def test_reset_of_a_completed_routine_has_it_run_again_under_a_new_key(
    using: str, kind: str
) -> None:
    body = Body(using)
    routine = routine_of(kind, using, body)
    run(routine)
    run(routine, trigger="reset", even_done=True)
    assert standings(routine) == {"shop.seed": Standing.OPEN}
    assert run(routine)[0].outcome is Outcome.RAN
    calls = 2 if kind == "batched" else 1
    assert body.numbers == [1] * calls + [3] * calls
    assert len(body.keys) == 2


def test_reset_of_a_completed_routine_resets_this_completion_only(using: str) -> None:
    for name, version in [("shop.seed", 1), ("shop.seed", 2), ("shop.other", 2)]:
        run(seed(using, name, version=version))
    run(seed(using, version=2), trigger="reset", even_done=True)
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
    run(routine, trigger="reset", even_done=True)
    run(routine)
    assert seen == [1, 2, 3, 4]
    assert last(using).resumed == 2


def test_reset_of_completed_batches_begins_at_the_start(using: str) -> None:
    seen: list[int] = []
    routine = batched(using, seen, [])
    run(routine)
    run(routine, trigger="reset", even_done=True)
    run(routine)
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4]
    assert (last(using).processed, last(using).resumed) == (4, 0)


def test_batches_that_fail_after_a_reset_go_on_after_the_new_ones(using: str) -> None:
    seen: list[int] = []
    fails_at: list[int] = []
    routine = batched(using, seen, fails_at)
    run(routine)
    run(routine, trigger="reset", even_done=True)
    fails_at += [1]
    run(routine)
    run(routine)
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4]
    assert last(using).resumed == 0


def test_fake_of_batches_under_way_completes_them(using: str) -> None:
    seen: list[int] = []
    routine = batched(using, seen, [3])
    run(routine)
    run(routine, trigger="fake")
    assert run(routine)[0].outcome is Outcome.ALREADY_DONE
    assert seen == [1, 2]


def test_reset_ends_the_delay_of_starting_servers(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    routine = seed(using, function=Body(using, LookupError()))
    run(routine)
    assert run(routine, respects_backoff=True)[0].outcome is Outcome.SKIPPED
    run(routine, trigger="reset", even_done=True)
    assert run(routine, respects_backoff=True)[0].outcome is Outcome.RAN


def test_reset_does_not_wait_for_a_predecessor_or_a_migration(using: str) -> None:
    second = seed(using, "second", after=["first"])
    with transaction.atomic(using=using):
        recorder.complete(begin(second))
    with lacking_migrations(using):
        results = run(seed(using, "first"), second, trigger="reset", even_done=True)
    assert [result.outcome for result in results] == [Outcome.RECORDED] * 2


def test_reset_of_what_a_higher_version_superseded_does_nothing(using: str) -> None:
    run(seed(using, version=2))
    (result,) = run(seed(using, version=1), trigger="reset", even_done=True)
    assert result.outcome is Outcome.ALREADY_DONE
    assert Completion.objects.using(using).count() == 1
    assert len(attempts(using)) == 1


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
        respects_backoff=True,
    )
    assert (first.outcome, first.reason) == (Outcome.SKIPPED, "failed")
    assert first.retry_in == pytest.approx(1000, abs=30)
    assert f"(pid {os.getpid()}) failed: LookupError: no mail server. Starting" in first.message
    assert first.message.endswith("`manage.py once run` tries at once.")
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
    recorder.close(begin(seed(using)), state)
    assert run(seed(using), respects_backoff=True)[0].outcome is Outcome.RAN


def test_starting_server_that_finds_a_second_dead_process_waits(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead or alive is known only under the lock."""
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    recorder.close(begin(seed(using)), State.LOST)
    begin(seed(using))
    (result,) = run(seed(using), respects_backoff=True)
    assert result.outcome is Outcome.SKIPPED
    assert result.retry_in == pytest.approx(1000, abs=30)
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "running")]


def test_starting_server_does_not_wait_for_who_tries_what_failed_lately(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    recorder.close(begin(seed(using)), State.FAILED)
    with database(using).lock("shop.seed", 15) as lock:
        take(lock)
        (result,) = run(seed(using), respects_backoff=True, timeout=1)
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "failed")
    assert result.retry_in == pytest.approx(1000, abs=30)


def test_starting_server_that_waited_for_a_failure_leaves_it_out(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    routine = seed(using)
    lock = database(using).lock(routine.name, 15)

    def fail(**kwargs: Any) -> None:
        recorder.close(begin(routine), State.FAILED)
        lock.release()

    with lock, receiving(signals.waiting, fail):
        take(lock)
        (result,) = run(routine, respects_backoff=True)
    assert result.outcome is Outcome.SKIPPED
    assert result.retry_in == pytest.approx(1000, abs=30)
    assert effects(using) == []


def test_run_by_a_person_tries_at_once(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    routine = seed(using, function=Body(using, LookupError()))
    assert [run(routine)[0].outcome for _ in range(2)] == [Outcome.FAILED, Outcome.RAN]


@pytest.mark.parametrize("scope", ["release", content("gone.csv")], ids=str)
def test_scope_that_lacks_what_it_needs_is_an_error_before_anything(using: str, scope: Any) -> None:
    """And none that passes for a lost lock, which would be waited for."""
    with pytest.raises(ImproperlyConfigured, match=r"'shop\.seed' has scope="):
        run(seed(using, "first"), seed(using, scope=scope))
    assert attempts(using) == []
