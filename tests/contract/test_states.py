"""The record of a state: one completion, which values are earlier ones, and what is kept."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from once import Routine, Run, state
from once.exceptions import AttemptLost
from once.models import Anchor, Attempt, Completion, State, Trigger
from once.record import anchors, history, recorder
from once.record.standing import Record, Standing
from once.results import Outcome, Reason
from tests.support import attempts, begin, completions, effects, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def of(using: str, value: str, **options: Any) -> Routine:
    """A routine of a release with a value."""
    return seed(using, scope=state(lambda: value), **options)


def record(routine: Routine, *, thoroughly: bool = False) -> Record:
    return history.read([routine], thoroughly=thoroughly)[routine.name]


def outcome(routine: Routine, **options: Any) -> Outcome:
    return run(routine, **options)[0].outcome


def key_of(using: str) -> str:
    """The scope key of the one completion."""
    return Completion.objects.using(using).get().scope_key


def fail(run: Run) -> None:
    raise LookupError("no such brand")


def test_state_has_one_completion_which_moves(using: str) -> None:
    releases = [of(using, value) for value in "abc"]
    for routine in releases:
        assert outcome(routine) is Outcome.RAN
        assert key_of(using) == routine.scope_key
        assert outcome(routine) is Outcome.ALREADY_DONE
    for routine in releases[:2]:
        [result] = run(routine)
        assert result.outcome is Outcome.ALREADY_DONE
        assert result.reason is Reason.EARLIER
        assert "once run --revert shop.seed" in result.message
    assert effects(using) == ["shop.seed"] * 3


def test_revert_resets_and_runs_under_a_new_key(using: str) -> None:
    first, second = of(using, "a"), of(using, "b")
    for routine in (first, second):
        run(routine)
    [result] = run(first, reverts=True, trigger=Trigger.COMMAND, user="eve", reason="rollback")
    assert result.outcome is Outcome.RAN
    rows = list(Attempt.objects.using(using).order_by("number"))
    assert [row.trigger for row in rows] == ["test", "test", "reset", "command"]
    assert [row.user for row in rows] == ["", "", "eve", ""]
    assert [row.reason for row in rows] == ["", "", "rollback", ""]
    assert rows[3].key == rows[2].key != rows[0].key
    assert key_of(using) == first.scope_key
    assert outcome(first, reverts=True) is Outcome.ALREADY_DONE
    assert outcome(second) is Outcome.ALREADY_DONE
    assert outcome(second, reverts=True) is Outcome.RAN


@pytest.mark.parametrize("trigger", ["test", "fake"])
def test_version_begins_anew_and_is_not_reverted(using: str, trigger: str) -> None:
    for routine in (of(using, "a"), of(using, "b"), of(using, "a", version=2)):
        assert outcome(routine) is Outcome.RAN
    before = attempts(using)
    [result] = run(of(using, "b"), reverts=True, trigger=trigger)
    assert (result.outcome, result.reason) == (Outcome.ALREADY_DONE, None)
    assert attempts(using) == before
    assert len(completions(using)) == 2


def test_begun_version_is_not_reverted(using: str) -> None:
    for value in "ab":
        run(of(using, value))
    run(of(using, "a", version=2, function=fail))
    assert record(of(using, "a"), thoroughly=True).standing is Standing.SUPERSEDED


def test_fake_of_an_earlier_value_records_it(using: str) -> None:
    first, second = of(using, "a"), of(using, "b")
    for routine in (first, second):
        run(routine)
    assert outcome(first, trigger=Trigger.FAKE) is Outcome.ALREADY_DONE
    assert outcome(first, trigger=Trigger.FAKE, reverts=True) is Outcome.RECORDED
    assert key_of(using) == first.scope_key
    assert record(second).standing is Standing.EARLIER
    assert effects(using) == ["shop.seed"] * 2


def test_reset_makes_the_last_value_pending_and_no_earlier_one(using: str) -> None:
    first, second = of(using, "a"), of(using, "b")
    for routine in (first, second):
        run(routine)
    assert outcome(first, trigger=Trigger.RESET) is Outcome.ALREADY_DONE
    run(second, trigger=Trigger.RESET, even_done=True)
    assert completions(using) == []
    assert record(second).standing is Standing.OPEN
    found = record(first)
    assert (found.standing, found.is_overtaken) == (Standing.EARLIER, True)


def test_reset_of_a_value_that_a_later_one_left_behind_meanwhile(using: str) -> None:
    """A person saw it completed; before the reset, a later value began, and failed."""
    first = of(using, "a")
    run(first)
    run(of(using, "b", function=fail))
    [result] = run(first, trigger=Trigger.RESET, even_done=True, wait=False)
    assert (result.outcome, result.reason) == (Outcome.ALREADY_DONE, Reason.OVERTAKEN)
    assert "a later value was begun" in result.message


@pytest.mark.parametrize("atomic", [True, False])
def test_value_that_began_and_failed_is_the_latest(using: str, atomic: bool) -> None:
    first = of(using, "a", atomic=atomic)
    second = of(using, "b", atomic=atomic, function=fail)
    run(first)
    assert outcome(second) is Outcome.FAILED
    # What is completed stays done for a starting server; asked in full, it may not be true.
    assert record(first).standing is Standing.DONE
    found = record(first, thoroughly=True)
    assert (found.standing, found.is_overtaken) == (Standing.EARLIER, True)
    assert outcome(first) is Outcome.ALREADY_DONE
    assert outcome(first, reverts=True) is Outcome.RAN
    assert effects(using) == ["shop.seed"] * 2
    [result] = run(second)
    assert (result.outcome, result.reason) == (Outcome.ALREADY_DONE, Reason.EARLIER)


def test_claim_that_never_acted_makes_no_value_known(using: str) -> None:
    """Neither does it make its own value the latest, nor another one an earlier one."""
    first, second = of(using, "a"), of(using, "b")
    run(first)
    recorder.close(begin(second), State.INTERRUPTED)
    assert record(first, thoroughly=True).standing is Standing.DONE
    assert outcome(of(using, "c")) is Outcome.RAN
    assert outcome(second) is Outcome.RAN
    recorder.close(begin(first), State.INTERRUPTED)
    assert record(first).standing is Standing.EARLIER


def test_revert_beside_a_dead_attempt_fences_it_first(using: str) -> None:
    first, second = of(using, "a"), of(using, "b")
    run(first)
    dead = begin(second)
    anchors.move(dead)
    assert outcome(first, reverts=True) is Outcome.RAN
    assert [state for _, _, state in attempts(using)] == [
        "succeeded",
        "lost",
        "succeeded",
        "succeeded",
    ]
    with pytest.raises(AttemptLost):
        recorder.lock_attempt(dead)


@pytest.mark.parametrize("reverts", [False, True])
def test_value_that_acts_until_its_fence_is_seen_after_it(
    using: str, monkeypatch: pytest.MonkeyPatch, reverts: bool
) -> None:
    """A failed value goes on; meanwhile a frozen process with a later value thaws, and acts."""
    failed = of(using, "a", function=fail)
    run(failed)
    frozen = begin(of(using, "b"))
    close = recorder.close

    def act_then_close(attempt: Attempt, *arguments: Any, **options: Any) -> State:
        if attempt.pk == frozen.pk and attempt.state == State.RUNNING:
            # By a statement that began before the claim of its successor, and ends now.
            last = {"number": frozen.number, "attempt": frozen}
            same: dict[str, Any] = {"routine": frozen.routine, "version": 1}
            same["scope_key"] = frozen.scope_key
            Anchor.objects.using(using).update_or_create(**same, defaults=last)
        return close(attempt, *arguments, **options)

    monkeypatch.setattr(recorder, "close", act_then_close)
    mended = of(using, "a")
    [result] = run(mended, reverts=reverts)
    assert result.is_done
    assert effects(using) == ["shop.seed"] * reverts
    triggers = Attempt.objects.using(using).order_by("number").values_list("trigger", "state")
    claimed = [("test", "failed"), ("test", "lost"), ("test", "interrupted")]
    again = [("reset", "succeeded"), ("test", "succeeded")] if reverts else []
    assert [*triggers] == claimed + again


@pytest.mark.parametrize("retry", [True, False])
def test_held_value_is_left_behind_by_the_next_one(using: str, retry: bool) -> None:
    first = of(using, "a", atomic=False, retry=retry, function=fail)
    run(first)
    assert outcome(of(using, "b", atomic=False, retry=retry)) is Outcome.RAN
    assert record(first).standing is Standing.EARLIER
    assert outcome(of(using, "a", atomic=False, retry=retry), reverts=True) is Outcome.RAN


def test_prune_keeps_what_tells_that_a_value_is_known(using: str) -> None:
    values = [of(using, value) for value in "abc"]
    run(values[0])
    run(of(using, "b", function=fail))
    ended = Attempt.objects.using(using).exclude(state=State.RUNNING)
    gone = timedelta(days=100)
    ended.update(started_at=F("started_at") - gone, finished_at=F("finished_at") - gone)
    assert anchors.prune(using, 30) == 0
    run(values[2])
    for routine in values[:2]:
        assert record(routine).standing is Standing.EARLIER


def test_scope_that_becomes_a_state_runs_once_and_leaves_the_older_record(using: str) -> None:
    plain, first = seed(using), of(using, "a")
    assert outcome(plain) is Outcome.RAN
    assert outcome(first) is Outcome.RAN
    assert outcome(plain) is Outcome.ALREADY_DONE
    assert outcome(of(using, "b")) is Outcome.RAN
    assert outcome(plain) is Outcome.ALREADY_DONE
    assert len(completions(using)) == 2


def test_completion_that_another_session_moved_is_not_overwritten(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(of(using, "a"))
    second = begin(of(using, "b"))
    rows = Completion.objects.using(using)

    def moved(self: Any, alias: str) -> int:
        return 0

    monkeypatch.setattr("django.db.models.query.QuerySet._raw_delete", moved)
    with pytest.raises(AttemptLost, match="moved the completion"):
        recorder.complete(second)
    assert rows.count() == 1


def test_values_of_two_routines_are_apart(using: str) -> None:
    same: Callable[[], str] = lambda: "a"  # noqa: E731
    one = seed(using, "shop.one", scope=state(same))
    two = seed(using, "shop.two", scope=state(same))
    run(one, two)
    run(seed(using, "shop.one", scope=state(lambda: "b")))
    stands = history.read([one, two])
    assert stands["shop.one"].standing is Standing.EARLIER
    assert stands["shop.two"].standing is Standing.DONE
    assert Anchor.objects.using(using).count() == 3


@pytest.mark.parametrize(("value", "standing"), [("a", Standing.EARLIER), ("b", Standing.DONE)])
def test_renamed_routine_knows_its_values(using: str, value: str, standing: Standing) -> None:
    for each in "ab":
        run(of(using, each))
    renamed = of(using, value, name="shop.plans", renamed_from=["shop.seed"])
    run(renamed)
    assert record(renamed).standing is standing
    assert effects(using) == ["shop.seed"] * 2
    assert outcome(of(using, "c", name="shop.plans", renamed_from=["shop.seed"])) is Outcome.RAN
    rows = Completion.objects.using(using).filter(routine="shop.plans")
    assert rows.count() == 1
