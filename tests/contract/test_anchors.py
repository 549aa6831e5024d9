"""What correctness needs outlives the history, whoever deletes that, and ``once prune`` does."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections
from django.db.models import F
from django.db.models.deletion import ProtectedError

from once import Routine, Run
from once.exceptions import AttemptLost
from once.models import Anchor, Attempt, Completion, State
from once.record import anchors, history, recorder
from once.record.standing import Record, Standing
from once.results import Outcome
from tests.support import attempts, begin, beside, conflict, last, rows, run, seed, standings

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def fail(run: Run) -> None:
    raise LookupError("no such brand")


def delete_by_hand(using: str) -> None:
    rows(using, "DELETE FROM once_attempt")


def delete_unnoticed(using: str) -> None:
    """As ``sqlite3`` does at a prompt, which asks for no foreign keys."""
    rows(using, "PRAGMA foreign_keys = OFF")
    try:
        rows(using, "DELETE FROM once_attempt")
    finally:
        rows(using, "PRAGMA foreign_keys = ON")


def age(using: str, days: float) -> None:
    gone = timedelta(days=days)
    ended = Attempt.objects.using(using).exclude(state=State.RUNNING)
    ended.update(started_at=F("started_at") - gone, finished_at=F("finished_at") - gone)


def held(using: str) -> Routine:
    routine = seed(using, function=fail, atomic=False, retry=False)
    run(routine)
    return routine


def half_done(using: str) -> tuple[Routine, list[int]]:
    """A backfill that stopped behind its first batch."""
    seen: list[int] = []

    def body(batch: list[int]) -> None:
        if seen and batch[0] == 2:
            seen.append(-1)
        seen.extend(batch)
        if seen.count(-1) == 1:
            raise LookupError

    routine = seed(using, function=body, over=lambda: range(4), batch_size=2)
    assert run(routine)[0].outcome is Outcome.FAILED
    seen[:] = [-1, -1]
    return routine, seen


@pytest.mark.parametrize(
    "delete", [delete_by_hand, lambda using: Attempt.objects.using(using).all().delete()]
)
def test_attempts_that_must_stay_cannot_be_deleted(
    using: str, delete: Callable[[str], Any]
) -> None:
    held(using)
    with pytest.raises((IntegrityError, ProtectedError)):
        delete(using)
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_held_routine_stays_held_where_what_may_be_deleted_is(using: str) -> None:
    routine = held(using)
    age(using, 100)
    assert anchors.prune(using, 30) == 0
    assert standings(routine) == {"shop.seed": Standing.HELD}


def test_backfill_goes_on_where_it_stopped_after_a_pruning(using: str) -> None:
    routine, seen = half_done(using)
    for _ in range(2):  # attempts that came to nothing, and are not needed
        recorder.close(begin(routine), State.INTERRUPTED)
    age(using, 100)
    assert anchors.prune(using, 30) == 2
    assert run(routine)[0].outcome is Outcome.RAN
    assert seen == [-1, -1, -1, 2, 3]


def test_attempt_that_was_not_let_to_act_takes_no_anchor(using: str) -> None:
    """It came after one that turned out to be held, and may be deleted; that one may not."""
    routine = seed(using, function=fail, atomic=False, retry=False)
    first = begin(routine)
    anchors.move(first)
    assert run(routine)[0].reason == "held"
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "interrupted")]
    age(using, 100)
    assert anchors.prune(using, 30) == 1
    assert standings(routine) == {"shop.seed": Standing.HELD}


@pytest.mark.parametrize("kind", ["atomic", "batched", "external"])
def test_attempt_is_anchored_before_its_body(using: str, kind: str) -> None:
    seen: list[int] = []

    def body(*batch: Any) -> None:
        seen.append(Anchor.objects.using(using).get().number)

    options: dict[str, Any] = {"function": lambda: body()}
    if kind == "batched":
        options = {"function": lambda batch: body(), "over": lambda: [1]}
    run(seed(using, atomic=kind != "external", **options))
    assert seen == [1]


def test_numbers_go_on_after_a_pruning(using: str) -> None:
    routine = seed(using)
    for _ in range(3):
        run(routine)
        run(routine, trigger="reset", even_done=True)
    run(routine)
    age(using, 100)
    assert anchors.prune(using, 30) == 6
    run(routine, trigger="reset", even_done=True)
    assert last(using).number == 8


def test_pruning_keeps_one_attempt_of_a_routine_and_forgets_its_old_releases(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for release in ("1", "2", "3"):
        monkeypatch.setenv("ONCE_RELEASE", release)
        run(seed(using, scope="release"))
    age(using, 100)
    assert anchors.prune(using, 30) == 2
    assert attempts(using) == [("shop.seed", 3, "succeeded")]
    assert Completion.objects.using(using).count() == 3
    assert anchors.prune(using, 30) == 0


def test_pruning_leaves_what_is_recent_and_what_runs(using: str) -> None:
    routine = seed(using, function=fail)
    run(routine)
    run(routine)
    assert anchors.prune(using, 30) == 0
    begin(routine)
    age(using, 100)
    assert anchors.prune(using, 30) == 1
    assert attempts(using) == [("shop.seed", 2, "failed"), ("shop.seed", 3, "running")]


def test_reset_of_a_backfill_carries_its_cursor_on(using: str) -> None:
    routine, seen = half_done(using)
    run(routine, trigger="reset")
    age(using, 100)
    assert anchors.prune(using, 30) == 1
    assert run(routine)[0].outcome is Outcome.RAN
    assert seen == [-1, -1, -1, 2, 3]


@pytest.mark.parametrize("state", [State.LOST, State.FAILED])
def test_anchor_is_refused_to_who_was_taken_over_from(using: str, state: State) -> None:
    first = begin(seed(using))
    recorder.close(first, state)
    second = begin(seed(using))
    anchors.move(second)
    with pytest.raises(AttemptLost):
        anchors.move(first)
    assert Anchor.objects.using(using).get().number == 2


def test_anchor_is_one_statement(using: str) -> None:
    attempt = begin(seed(using))
    asked: list[str] = []

    def note(execute: Any, sql: str, *args: Any) -> Any:
        asked.append(sql)
        return execute(sql, *args)

    with connections[using].execute_wrapper(note):
        anchors.move(attempt)
    assert len([sql for sql in asked if not sql.startswith("SET ")]) == 1


@pytest.mark.parametrize("retry", [True, False])
def test_attempt_that_sqlite_let_be_deleted_is_noticed_and_held(retry: bool) -> None:
    routine = seed("sqlite", function=fail, atomic=False, retry=retry)
    run(routine)
    delete_unnoticed("sqlite")
    assert history.read([routine])["shop.seed"].is_gone
    (result,) = run(routine)
    assert result.reason == "held"
    assert "Held, since its last attempt was deleted from once_attempt" in result.message
    assert run(routine, trigger="reset")[0].outcome is Outcome.RECORDED
    assert last("sqlite").number == 2
    assert standings(routine) == {"shop.seed": Standing.OPEN}


def test_deletion_of_all_is_no_trouble_where_all_is_done() -> None:
    routine = seed("sqlite")
    run(routine)
    delete_unnoticed("sqlite")
    assert run(routine)[0].outcome is Outcome.ALREADY_DONE
    run(seed("sqlite", version=2))
    assert last("sqlite").number == 2


def test_code_without_over_leaves_the_anchor_where_the_batches_stopped(using: str) -> None:
    routine, seen = half_done(using)
    for _ in range(2):
        (refused,) = run(seed(using, function=lambda: seen.append(99)))
        assert "has no over= any more" in refused.message
        age(using, 100)
        anchors.prune(using, 30)
    run(routine)
    assert seen == [-1, -1, -1, 2, 3]


@pytest.mark.parametrize("atomic", [True, False])
def test_attempt_whose_predecessor_ends_while_it_claims_takes_no_anchor(
    using: str, atomic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    routine = seed(using, function=lambda: calls.append(1), atomic=atomic, retry=False)
    first = begin(routine)
    anchors.move(first)
    read = history.read_under_lock

    def then_end(it: Routine) -> Record:
        record = read(it)
        with beside(lambda: recorder.close(first, State.FAILED)) as ended:
            ended.result(30)
        return record

    with monkeypatch.context() as patch:
        patch.setattr(history, "read_under_lock", then_end)
        assert run(routine)[0].reason == "held"
    assert attempts(using) == [("shop.seed", 1, "failed"), ("shop.seed", 2, "interrupted")]
    assert Anchor.objects.using(using).get().number == 1
    age(using, 100)
    anchors.prune(using, 30)
    assert standings(routine) == {"shop.seed": Standing.HELD}
    run(routine)
    assert not calls


@pytest.mark.parametrize("atomic", [True, False])
def test_claim_that_cannot_move_the_anchor_leaves_no_attempt_that_holds(
    using: str, atomic: bool
) -> None:
    errors = [conflict(using)]

    def refuse(execute: Any, sql: str, *call: Any) -> Any:
        if errors and re.search("INSERT INTO .once_anchor", sql):
            raise errors.pop()
        return execute(sql, *call)

    calls: list[int] = []
    routine = seed(using, function=lambda: calls.append(1), atomic=atomic, retry=False)
    connections[using].ensure_connection()
    with connections[using].execute_wrapper(refuse):
        (result,) = run(routine)
    assert not errors
    assert result.outcome is Outcome.RAN
    assert calls == [1]
