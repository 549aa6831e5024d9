"""What people want of a routine: recorded with the person, heeded between batches."""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from once import Routine, Run
from once.databases import database
from once.databases.lock import AdvisoryLock
from once.models import Attempt, Now, State, Wish, Worker
from once.record import history, recorder, wishes, workers
from once.results import Outcome, Reason, Result
from tests.support import attempts, begin, last, raising, rows, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

NAME = "shop.fill"


def want(using: str, kind: str = "pause", name: str = NAME, **values: Any) -> Wish | None:
    given = {"user": "ada", "reason": "peak hours", **values}
    return wishes.add(using, name, Wish.Kind(kind), **given)


def want_inside(using: str, kind: str = "pause", **values: Any) -> None:
    """The same in a body: SQLite admits no other writer meanwhile."""
    number = Wish.objects.using(using).count() + 1
    given = {"is_paused": kind == "pause", "user": "ada", "reason": "peak hours", **values}
    Wish.objects.using(using).create(routine=NAME, number=number, kind=kind, **given)


def batched(using: str, body: Callable[..., None], **options: Any) -> Routine:
    given = {"over": lambda: range(1, 8), "batch_size": 2, **options}
    return seed(using, NAME, function=body, **given)


def test_paused_routine_is_taken_up_by_no_run_until_it_is_resumed(using: str) -> None:
    routine = seed(using, NAME)
    want(using)
    (result,) = run(routine)
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, Reason.PAUSED)
    assert result.message == (
        "Paused by ada (peak hours). `manage.py once resume shop.fill` has it go on."
    )
    assert attempts(using) == []
    want(using, "resume")
    assert run(routine)[0].outcome is Outcome.RAN


def test_routine_that_was_resumed_meanwhile_is_not_said_to_be_paused(using: str) -> None:
    want(using)
    want(using, "resume", user="bob")
    assert wishes.explain(using, NAME) == "It was paused, and was resumed meanwhile."


def test_routine_that_comes_after_a_paused_one_is_left_out(using: str) -> None:
    before = seed(using, NAME)
    want(using)
    _, result = run(before, seed(using, "shop.next", after=[before]), keep_going=True)
    assert result.outcome is Outcome.SKIPPED
    assert result.message == "Not tried, since shop.fill must be done before."


def test_done_routine_stays_done_whatever_is_wanted(using: str) -> None:
    routine = seed(using, NAME)
    run(routine)
    want(using)
    assert run(routine)[0].outcome is Outcome.ALREADY_DONE


@pytest.mark.parametrize("retry", [True, False])
def test_pause_ends_an_attempt_after_the_batch_in_hand(using: str, retry: bool) -> None:
    """Also of a routine that a person decides about after a failure: a pause is none."""
    seen: list[list[int]] = []

    def body(batch: list[int]) -> None:
        seen.append(batch)
        if batch == [3, 4]:
            want_inside(using)

    routine = batched(using, body, retry=retry)
    (result,) = run(routine)
    assert seen == [[1, 2], [3, 4]]
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, Reason.PAUSED)
    attempt = last(using)
    assert (attempt.state, attempt.processed, attempt.retry) == ("interrupted", 4, True)
    assert attempt.error_line.startswith("Paused by ada (peak hours).")
    want(using, "resume")
    assert run(routine)[0].outcome is Outcome.RAN
    assert seen[2:] == [[5, 6], [7]]


def test_pause_before_the_first_batch_calls_no_body(using: str) -> None:
    """It may come between the claim and the first batch."""
    seen: list[list[int]] = []

    def over() -> range:
        want(using)
        return range(3)

    (result,) = run(batched(using, lambda batch: seen.append(batch), over=over))
    assert (result.reason, seen) == (Reason.PAUSED, [])


@pytest.mark.parametrize("atomic", [True, False])
def test_body_without_batches_comes_to_its_end(using: str, atomic: bool) -> None:
    routine = seed(using, NAME, function=lambda: want_inside(using), atomic=atomic)
    assert run(routine)[0].outcome is Outcome.RAN


def test_what_is_set_holds_from_the_next_batch_on(using: str) -> None:
    sizes: list[int] = []

    def body(batch: list[int]) -> None:
        sizes.append(len(batch))
        if len(sizes) == 1:
            want_inside(using, "set", version=1, batch_size=3)
        if len(sizes) == 2:
            want_inside(using, "set", version=1)

    run(batched(using, body))
    assert sizes == [2, 3, 2]


def test_rest_that_is_set_anew_while_it_lasts(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a rest of a day no more than a second is slept before the next look."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        want(using, "set", version=1, rest=0.0)

    monkeypatch.setattr(time, "sleep", sleep)
    assert run(batched(using, lambda batch: None, rest=86_400))[0].outcome is Outcome.RAN
    assert slept == [1.0]


def test_what_is_set_ends_with_the_version_and_a_pause_does_not(using: str) -> None:
    sizes: list[int] = []
    newer = batched(using, lambda batch: sizes.append(len(batch)), version=2)
    want(using, "set", version=1, batch_size=7)
    run(newer)
    assert sizes == [2, 2, 2, 1]
    want(using)
    assert run(batched(using, lambda batch: None, version=3))[0].reason is Reason.PAUSED


def test_each_wish_keeps_what_it_is_not_about(using: str) -> None:
    want(using, "set", version=2, batch_size=7)
    want(using, "pause")
    last_one = want(using, "set", version=2, rest=0.5)
    assert last_one is not None
    assert (last_one.number, last_one.is_paused) == (3, True)
    assert wishes.values(last_one) == {"batch_size": 7, "rest": 0.5}
    resumed = want(using, "resume")
    assert resumed is not None
    assert (resumed.is_paused, wishes.values(resumed)) == (False, wishes.values(last_one))
    newer = want(using, "set", version=3, batch_seconds=2.0)
    assert newer is not None
    assert wishes.values(newer) == {"batch_seconds": 2.0}


def test_wishes_at_the_same_moment_are_made_one_after_the_other(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one knows of the first, and loses nothing that it set."""
    read, others = wishes.last, [partial(want_inside, using, "set", version=1, rest=0.5)]

    def read_and_be_late(*arguments: Any) -> dict[str, Wish]:
        found = read(*arguments)
        if others:
            others.pop()()
        return found

    monkeypatch.setattr(wishes, "last", read_and_be_late)
    made = want(using, "set", version=1, batch_size=9)
    assert made is not None
    assert (made.number, wishes.values(made)) == (2, {"batch_size": 9, "rest": 0.5})


@pytest.mark.parametrize("kind", ["pause", "resume"])
def test_wish_that_stands_already_is_none(using: str, kind: str) -> None:
    if kind == "pause":
        want(using)
    assert want(using, kind) is None
    assert len(wishes.history(using, NAME)) == (kind == "pause")


def test_reason_that_the_charset_lacks_is_recorded_all_the_same(using: str) -> None:
    wish = want(using, reason="\ud800 night")
    assert wish is not None
    assert rows(using, "SELECT count(*) FROM once_wish") == [(1,)]


def test_pause_of_one_database_is_none_of_another(using: str) -> None:
    want({"default": "sqlite", "sqlite": "default"}[using])
    assert run(seed(using, NAME))[0].outcome is Outcome.RAN


def test_run_of_a_body_that_may_not_follow_is_held_and_not_paused(using: str) -> None:
    """What asks for a decision comes first."""

    def body(run: Run) -> None:
        raise LookupError

    routine = seed(using, NAME, function=body, atomic=False, retry=False)
    run(routine)
    want(using)
    assert run(routine)[0].reason is Reason.HELD
    assert Attempt.objects.using(using).count() == 1


def fail(using: str) -> None:
    """Have the last attempt at the routine be one of another process, which failed."""
    recorder.close(begin(seed(using, NAME)), State.FAILED, "LookupError: no such currency")


def looks(*routines: Routine, **options: Any) -> list[Result]:
    """Run routines as a process does that leaves out what failed lately."""
    return run(*routines, respects_backoff=True, wait=False, **options)


def test_run_that_is_wanted_waits_for_no_delay_and_is_one_attempt(using: str) -> None:
    routine = seed(using, NAME, function=raising(LookupError(), using))
    fail(using)
    assert looks(routine)[0].retry_in > 0
    want(using, "run")
    assert history.read([routine])[NAME].is_wanted
    assert looks(routine)[0].outcome is Outcome.FAILED
    assert not history.read([routine])[NAME].is_wanted
    assert looks(routine)[0].retry_in > 0
    assert len(attempts(using)) == 2


def test_run_that_is_wanted_is_wanted_whatever_else_is(using: str) -> None:
    routine = seed(using, NAME)
    fail(using)
    want(using, "run")
    want(using, "set", version=1, batch_size=9)
    want(using)
    assert looks(routine)[0].reason is Reason.PAUSED
    resumed = want(using, "resume")
    assert resumed is not None
    assert (resumed.run_after, wishes.values(resumed)) == (1, {"batch_size": 9})
    assert looks(routine)[0].outcome is Outcome.RAN


def test_run_is_wanted_once_until_an_attempt_answers_it(using: str) -> None:
    fail(using)
    assert want(using, "run") is not None
    assert want(using, "run") is None
    fail(using)
    assert want(using, "run") is not None


def late(using: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[str], None]) -> None:
    """Have another process act after this one has read the record, and before it has the lock."""
    here = type(database(using))
    lock = here.lock

    def locked_late(self: Any, *args: Any) -> AdvisoryLock:
        made = lock(self, *args)
        acquire = made.acquire

        def acquire_late(*args: Any) -> bool:
            act(using)
            return acquire(*args)

        monkeypatch.setattr(made, "acquire", acquire_late)
        return made

    monkeypatch.setattr(here, "lock", locked_late)


def test_run_that_another_process_answers_at_that_moment_is_not_repeated(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(using)
    want(using, "run")
    late(using, monkeypatch, fail)
    assert looks(seed(using, NAME))[0].retry_in > 0
    assert [state for *_, state in attempts(using)] == ["failed", "failed"]


def try_items(using: str) -> None:
    """Have another process try the failed items, in vain."""
    attempt = recorder.begin(seed(using, NAME), history.next_attempt(seed(using, NAME)), "items")
    assert attempt is not None
    recorder.close(attempt, State.FAILED, "LookupError")


def test_failed_items_that_are_wanted_are_tried_by_one_process(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def body(batch: list[int]) -> None:
        if 3 in batch:
            tried.append(len(batch))
            raise LookupError

    routine = batched(using, body, max_errors=1)
    assert run(routine)[0].outcome is Outcome.RAN
    tried.clear()
    assert looks(routine, trigger="items")[0].outcome is Outcome.ALREADY_DONE
    want(using, "run")
    assert looks(routine, trigger="items")[0].outcome is Outcome.FAILED
    assert looks(routine, trigger="items")[0].outcome is Outcome.ALREADY_DONE
    want(using, "run")
    late(using, monkeypatch, try_items)
    assert looks(routine, trigger="items")[0].outcome is Outcome.ALREADY_DONE
    assert tried == [1]


def test_worker_is_present_as_long_as_it_looks(using: str) -> None:
    assert workers.present(using) == set()
    workers.tell(using, "worker")
    workers.tell(using, "")
    assert workers.present(using) == {"worker", ""}
    for moment in (Now() - timedelta(seconds=31), Now() + timedelta(seconds=9)):
        Worker.objects.using(using).filter(role="").update(looked_at=moment)
        assert workers.present(using) == {"worker"}  # also where the clock was set back
        workers.tell(using, "")
        assert workers.present(using) == {"worker", ""}


def test_worker_writes_no_more_than_it_must(using: str) -> None:
    workers.tell(using, "worker")
    before = rows(using, "SELECT looked_at FROM once_worker")
    workers.tell(using, "worker")
    assert rows(using, "SELECT looked_at FROM once_worker") == before
