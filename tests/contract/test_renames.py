"""``renamed_from``: the record goes on under a new name, and an older release finds a tombstone."""

from functools import partial
from typing import Any

import pytest
from django.db import OperationalError

from once import Routine, signals, state
from once.engine import renaming
from once.exceptions import AttemptLost
from once.models import Anchor, Attempt, Completion, Now, State, Wish
from once.record import anchors, history, recorder, wishes
from once.record.standing import Record, Standing
from once.results import Outcome, Reason
from once.routines.names import TOMBSTONE
from once.routines.registry import Registry
from tests.contract.test_kinds import Body, kind, routine_of
from tests.support import attempts, begin, completions, effects, receiving, run, seed

__all__ = ["kind"]

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

BURIED = ("shop.old", TOMBSTONE)


def old(using: str, **options: Any) -> Routine:
    return seed(using, "shop.old", **options)


def new(using: str, **options: Any) -> Routine:
    return seed(using, "shop.new", **{"renamed_from": "shop.old", **options})


def read(routine: Routine) -> Record:
    return history.read([routine])[routine.name]


def rows(using: str, name: str) -> list[tuple[int, int, str, str, str]]:
    """Number, version, state, trigger and reason of each attempt under a name."""
    found = Attempt.objects.using(using).filter(routine=name).order_by("number")
    return list(found.values_list("number", "version", "state", "trigger", "reason"))


def complete(using: str, name: str, version: int) -> None:
    Completion.objects.using(using).create(routine=name, version=version)


def anchored(using: str) -> list[tuple[str, int, int]]:
    found = Anchor.objects.using(using).order_by("routine", "version")
    return list(found.values_list("routine", "version", "number"))


def test_done_stays_done_under_the_new_name(using: str) -> None:
    run(old(using))
    [before] = Completion.objects.using(using).values_list("completed_at", flat=True)
    (result,) = run(new(using))
    assert result.outcome is Outcome.ALREADY_DONE
    assert effects(using) == ["shop.old"]
    assert sorted(completions(using)) == [("shop.new", 1), BURIED]
    carried = Completion.objects.using(using).get(routine="shop.new")
    assert carried.completed_at == before
    assert rows(using, "shop.new") == [
        (1, 0, "succeeded", "rename", "from shop.old"),
        (2, 1, "succeeded", "test", ""),
    ]
    assert rows(using, "shop.old") == [(2, TOMBSTONE, "succeeded", "rename", "to shop.new")]
    assert anchored(using) == [("shop.new", 1, 2), ("shop.old", TOMBSTONE, 2)]


def test_done_counts_as_done_before_it_is_carried_over(using: str) -> None:
    run(old(using))
    record = read(new(using))
    assert (record.standing, record.uncarried) == (Standing.DONE, ("shop.old",))
    assert read(new(using, version=2)).standing is Standing.OPEN
    assert read(new(using)).number == 0  # what is claimed next under that name


def test_second_run_carries_nothing_over(using: str) -> None:
    run(old(using))
    run(new(using))
    before = attempts(using)
    assert run(new(using))[0].outcome is Outcome.ALREADY_DONE
    assert (attempts(using), read(new(using)).uncarried) == (before, ())


def test_new_database_gets_a_tombstone_and_the_routine_begins_at_one(using: str) -> None:
    assert run(new(using))[0].outcome is Outcome.RAN
    assert attempts(using) == [("shop.new", 1, "succeeded"), ("shop.old", 1, "succeeded")]
    assert run(old(using))[0].outcome is Outcome.ALREADY_DONE
    assert effects(using) == ["shop.new"]


def test_older_release_is_superseded(using: str) -> None:
    run(old(using))
    run(new(using))
    for version in (1, 5, TOMBSTONE - 1):
        assert read(old(using, version=version)).standing is Standing.SUPERSEDED
        assert run(old(using, version=version))[0].outcome is Outcome.ALREADY_DONE
    for trigger in ("reset", "fake"):
        assert run(old(using), trigger=trigger, even_done=True)[0].outcome is Outcome.ALREADY_DONE
    assert effects(using) == ["shop.old"]


def test_version_that_rises_at_once_runs_again(using: str) -> None:
    run(old(using))
    assert run(new(using, version=2))[0].outcome is Outcome.RAN
    assert sorted(completions(using)) == [("shop.new", 1), ("shop.new", 2), BURIED]
    assert rows(using, "shop.new")[-1][:3] == (3, 2, "succeeded")


def test_number_goes_on_above_both_and_the_key_stays(using: str, kind: str) -> None:
    body = Body(using, LookupError(), LookupError(), None)
    for _ in range(2):
        run(routine_of(kind, using, body, name="shop.old"))
    (result,) = run(routine_of(kind, using, body, name="shop.new", renamed_from="shop.old"))
    assert result.outcome is Outcome.RAN
    # One number is that of the tombstone.
    assert [each.attempt for each in body.runs][:3] == [1, 2, 4]
    assert len({each.key for each in body.runs}) == 1


def test_batches_go_on_at_the_cursor(using: str) -> None:
    done: list[int] = []
    fails = [True]

    def body(batch: list[int]) -> None:
        if 3 in batch and fails.pop():
            raise LookupError
        done.extend(batch)

    options = {"function": body, "over": lambda: [1, 2, 3, 4, 5], "batch_size": 2}
    fails.insert(0, False)
    assert run(old(using, **options))[0].outcome is Outcome.FAILED
    assert run(new(using, **options))[0].outcome is Outcome.RAN
    assert done == [1, 2, 3, 4, 5]
    row = Attempt.objects.using(using).filter(routine="shop.new").latest("number")
    assert (row.processed, row.resumed) == (5, 2)


def test_held_stays_held_until_a_person_decides(using: str) -> None:
    options = {"atomic": False, "retry": False}
    body = Body(using, LookupError(), None)
    run(old(using, function=body, **options))
    (result,) = run(new(using, function=body, **options))
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, Reason.HELD)
    assert len(body.runs) == 1
    run(new(using, function=body, **options), trigger="reset")
    assert run(new(using, function=body, **options))[0].outcome is Outcome.RAN
    assert len({each.key for each in body.runs}) == 1


def test_reset_of_what_was_not_yet_carried_over(using: str) -> None:
    run(old(using))
    assert run(new(using), trigger="reset", even_done=True)[0].outcome is Outcome.RECORDED
    assert run(new(using))[0].outcome is Outcome.RAN
    assert effects(using) == ["shop.new", "shop.old"]


def test_reset_while_another_process_carries_over(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(old(using))
    carry = renaming.carry

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.undo()
        run(new(using))
        return carry(*arguments)

    monkeypatch.setattr(renaming, "carry", overtaken)
    assert run(new(using), trigger="reset", even_done=True)[0].outcome is Outcome.RECORDED
    assert [row[2:4] for row in rows(using, "shop.old")] == [("succeeded", "rename")]


def test_fake_of_what_was_not_yet_carried_over(using: str) -> None:
    run(old(using, function=Body(using, LookupError())))
    assert run(new(using), trigger="fake")[0].outcome is Outcome.RECORDED
    assert (effects(using), read(new(using)).standing) == ([], Standing.DONE)
    assert read(old(using)).standing is Standing.SUPERSEDED


def test_starting_server_waits_after_a_failure_under_the_old_name(using: str) -> None:
    run(old(using, function=Body(using, LookupError())))
    (result,) = run(new(using), respects_backoff=True)
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, Reason.FAILED)
    assert result.retry_in > 0
    assert effects(using) == []


@pytest.mark.parametrize("scope", ["release"])
def test_each_release_that_was_done_stays_done(
    using: str, scope: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for release in ("1", "2"):
        monkeypatch.setenv("ONCE_RELEASE", release)
        run(old(using, scope=scope))
    assert run(new(using, scope=scope))[0].outcome is Outcome.ALREADY_DONE
    monkeypatch.setenv("ONCE_RELEASE", "1")
    assert run(new(using, scope=scope))[0].outcome is Outcome.ALREADY_DONE
    monkeypatch.setenv("ONCE_RELEASE", "3")
    assert read(old(using, scope=scope)).standing is Standing.SUPERSEDED
    assert run(new(using, scope=scope))[0].outcome is Outcome.RAN
    assert effects(using) == ["shop.new", "shop.old", "shop.old"]


def test_running_attempt_of_a_dead_process_is_fenced_first(using: str) -> None:
    dead = begin(old(using))
    anchors.move(dead)
    lost: list[Attempt] = []

    def note(attempt: Attempt, **kwargs: Any) -> None:
        lost.append(attempt)

    with receiving(signals.attempt_lost, note):
        assert run(new(using))[0].outcome is Outcome.RAN
    assert [each.pk for each in lost] == [dead.pk]
    assert rows(using, "shop.new")[1][:3] == (2, 1, "lost")
    assert recorder.close(dead, State.SUCCEEDED) is State.LOST  # it can record nothing more
    assert history.has_successor(dead)


@pytest.mark.parametrize("retry", [True, False])
def test_frozen_process_that_thaws_claims_nothing(using: str, retry: bool) -> None:
    """It read the record under the lock that it has lost since, and inserts its attempt now."""
    routine = old(using, retry=retry)
    upcoming = history.next_attempt(routine)
    run(new(using))
    assert recorder.begin(routine, upcoming, "test") is None


def test_frozen_process_that_claims_a_number_that_moved_does_not_act(using: str) -> None:
    """Two processes claimed since it read the record, so that the number it wants is free again."""
    routine = old(using)
    upcoming = history.next_attempt(routine)
    run(old(using))
    run(new(using))
    frozen = recorder.begin(routine, upcoming, "test")
    assert frozen is not None
    with pytest.raises(AttemptLost, match="attempt 1 lost its right to commit"):
        anchors.move(frozen)
    assert anchored(using) == [("shop.new", 1, 2), ("shop.old", TOMBSTONE, 2)]


def test_frozen_process_of_the_new_name_claims_nothing(using: str) -> None:
    """It read that nothing is there, by a release that does not say renamed_from."""
    routine = new(using, renamed_from=())
    upcoming = history.next_attempt(routine)
    run(old(using))
    run(new(using))
    assert recorder.begin(routine, upcoming, "test") is None


@pytest.mark.parametrize("known", [[], ["shop.old"], ["shop.older"], ["shop.older", "shop.old"]])
def test_any_release_may_follow_any_earlier_one(using: str, known: list[str]) -> None:
    """The names of three releases, of which some ran, each after the one before."""
    renamed_from: list[str] = []
    for name in ("shop.older", "shop.old"):
        if name in known:
            run(seed(using, name, renamed_from=renamed_from))
        renamed_from.append(name)
    (result,) = run(new(using, renamed_from=renamed_from))
    assert result.outcome is (Outcome.ALREADY_DONE if known else Outcome.RAN)
    assert len(effects(using)) == 1
    for name in ("shop.older", "shop.old"):
        assert read(seed(using, name)).standing is Standing.SUPERSEDED
    assert read(seed(using, "shop.old", renamed_from="shop.older")).uncarried == ()
    assert run(seed(using, "shop.old", renamed_from="shop.older"))[0].is_done
    assert len(effects(using)) == 1


def test_name_that_was_given_up_takes_no_record_from_a_newer_release(using: str) -> None:
    run(old(using))
    run(new(using))
    back = old(using, renamed_from="shop.new")
    assert run(back)[0].outcome is Outcome.ALREADY_DONE
    assert read(new(using)).standing is Standing.DONE
    assert rows(using, "shop.old") == [(2, TOMBSTONE, "succeeded", "rename", "to shop.new")]


@pytest.mark.parametrize(
    ("first", "second", "standing"),
    [
        ("done", "done", Standing.DONE),
        ("done", "failed", Standing.DONE),
        ("failed", "done", Standing.DONE),
        ("failed", "failed", Standing.OPEN),
    ],
)
def test_effects_of_both_names_count(
    using: str, first: str, second: str, standing: Standing
) -> None:
    for name, how in (("shop.old", first), ("shop.new", second)):
        error = LookupError() if how == "failed" else None
        run(seed(using, name, function=Body(using, error)))
    keys = dict(Attempt.objects.using(using).values_list("routine", "key"))
    assert read(new(using)).standing is standing
    body = Body(using, None)
    (result,) = run(new(using, function=body))
    assert result.is_done
    assert len(body.runs) == (standing is Standing.OPEN)
    if body.runs:  # what is carried over counts as later
        assert (body.runs[0].key, body.runs[0].attempt) == (keys["shop.old"], 4)
    assert [row[:1] + row[3:] for row in rows(using, "shop.new")][:3] == [
        (1, "test", ""),
        (2, "rename", "from shop.old"),
        (3, "test", ""),
    ]
    assert len([each for each in anchored(using) if each[0] == "shop.new"]) == 1


def test_held_under_one_of_two_names_is_held(using: str) -> None:
    options = {"atomic": False, "retry": False}
    run(old(using, function=Body(using, LookupError()), **options))
    run(seed(using, "shop.new", function=Body(using, LookupError())))
    assert run(new(using, **options))[0].reason is Reason.HELD


def test_claim_under_the_new_name_in_between_has_it_begin_anew(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(old(using))
    next_attempt = history.next_attempt

    def overtaken(routine: Routine) -> history.NextAttempt:
        upcoming = next_attempt(routine)
        if routine.renamed_from:
            monkeypatch.undo()
            begin(new(using, renamed_from=()))
        return upcoming

    monkeypatch.setattr(history, "next_attempt", overtaken)
    assert run(new(using))[0].is_done
    assert [row[2] for row in rows(using, "shop.old")] == ["lost", "succeeded"]
    assert effects(using) == ["shop.old"]


@pytest.mark.parametrize("state", [State.RUNNING, State.SUCCEEDED])
def test_newer_release_that_renames_it_further_is_left_alone(using: str, state: State) -> None:
    """Its claim, or its tombstone, came after this process had read the record."""
    run(old(using))
    before = rows(using, "shop.old")
    kept = new(using, version=2)

    def rename(attempt: Attempt, **kwargs: Any) -> None:
        if (attempt.routine, attempt.number) == ("shop.old", 2):
            further = begin(seed(using, "shop.new", version=TOMBSTONE - 1))
            values: dict[str, Any] = {"version": TOMBSTONE, "state": state}
            if state is State.SUCCEEDED:
                complete(using, "shop.new", TOMBSTONE)
                values |= {"finished_at": Now(), "trigger": "rename", "reason": "to shop.newer"}
            Attempt.objects.using(using).filter(pk=further.pk).update(**values)

    with receiving(signals.attempt_started, rename):
        (result,) = run(kept, patience=0.1)
    assert rows(using, "shop.old")[:1] == before
    assert len(rows(using, "shop.new")) == 1
    assert effects(using) == ["shop.old"]
    # Begun, or done, at a version above its own: in either case it is not for this release.
    assert result.outcome is Outcome.ALREADY_DONE


def test_what_comes_after_it_runs_in_an_older_release_once_it_is_done(using: str) -> None:
    run(old(using, function=Body(using, LookupError())))
    run(new(using, function=Body(using, LookupError())))
    before, behind = old(using), seed(using, "shop.behind", after=["shop.old"])
    waiting, skipped = run(before, behind)
    assert (waiting.reason, skipped.outcome) == (Reason.OVERTAKEN, Outcome.SKIPPED)
    run(new(using))
    assert run(before, behind)[1].outcome is Outcome.RAN
    assert effects(using) == ["shop.behind", "shop.new"]


def test_after_resolves_an_old_name(using: str) -> None:
    registry = Registry([seed(using, "shop.behind", after=["shop.old"]), new(using)])
    assert [each.name for each in registry] == ["shop.new", "shop.behind"]
    assert [each.name for each in registry.select(["shop.old"])] == ["shop.new"]


def test_each_database_has_its_own_record() -> None:
    run(old("default"))
    first, second = new("default"), seed("sqlite", "shop.other", renamed_from="shop.older")
    results = run(first, second)
    assert [each.outcome for each in results] == [Outcome.ALREADY_DONE, Outcome.RAN]
    assert not Attempt.objects.using("sqlite").filter(routine="shop.old").exists()


def test_pruned_history_is_carried_over(using: str) -> None:
    run(old(using))
    for _ in range(3):
        run(old(using), trigger="reset", even_done=True)
        run(old(using))
    anchors.prune(using, -1)
    number = Attempt.objects.using(using).latest("number").number
    run(new(using))
    run(new(using), trigger="reset", even_done=True)
    assert rows(using, "shop.new")[-1][0] > number + 1
    assert run(new(using))[0].outcome is Outcome.RAN


def test_completion_without_a_history_is_carried_over(using: str) -> None:
    complete(using, "shop.old", 1)
    assert run(new(using))[0].outcome is Outcome.ALREADY_DONE
    assert effects(using) == []


def test_prune_leaves_the_tombstone(using: str) -> None:
    run(new(using))
    anchors.prune(using, -1)
    assert rows(using, "shop.old") == [(1, TOMBSTONE, "succeeded", "rename", "to shop.new")]
    assert read(old(using)).standing is Standing.SUPERSEDED


def test_tombstone_that_is_gone_under_the_lock_is_no_reason_to_run(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover that lost it, between the carrying over and the claim."""
    monkeypatch.setattr(renaming, "carry", lambda *args: None)
    run(old(using, function=Body(using, LookupError())))
    (result,) = run(new(using))
    assert result.outcome is Outcome.SKIPPED
    assert "the tombstone of its old name shop.old is gone" in result.message
    assert effects(using) == []


def test_value_of_a_state_stays_the_last_one(using: str) -> None:
    first, second, third = (state(partial(format, value)) for value in (1, 2, 3))
    for value in (first, second):
        run(old(using, scope=value))
    assert run(new(using, scope=second))[0].outcome is Outcome.ALREADY_DONE
    assert read(new(using, scope=first)).standing is Standing.EARLIER
    assert run(new(using, scope=third))[0].outcome is Outcome.RAN
    assert read(new(using, scope=second)).standing is Standing.EARLIER
    assert effects(using) == ["shop.new", "shop.old", "shop.old"]


def test_database_that_hinders_the_carrying_over_is_waited_for(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no failure of a routine, and is tried again."""
    from once.record import renames

    def hindered(*args: Any) -> None:
        monkeypatch.undo()
        raise OperationalError("a lock wait timed out")

    run(old(using, function=Body(using, LookupError())))
    monkeypatch.setattr(renames, "carry", hindered)
    assert run(new(using))[0].outcome is Outcome.RAN
    assert [row[2] for row in rows(using, "shop.old")] == ["interrupted", "succeeded"]


@pytest.mark.parametrize("wished", [Wish.Kind.SET, Wish.Kind.RUN])
def test_pause_under_the_old_name_outlives_what_is_wished_under_the_new_one(
    using: str, wished: Wish.Kind
) -> None:
    by: dict[str, Any] = {"user": "ada", "reason": ""}
    recorder.close(begin(old(using)), State.FAILED)
    wishes.add(using, "shop.old", Wish.Kind.PAUSE, **by)
    wishes.add(using, "shop.new", wished, **by)
    assert run(new(using))[0].reason is Reason.PAUSED
    wishes.add(using, "shop.new", Wish.Kind.RESUME, **by)
    assert wishes.wanted(using, ["shop.new"]) == set()  # whose attempts have other numbers
