"""Items that fail: each is left behind, recorded with the cursor, and tried again when told to."""

from collections.abc import Callable, Iterator
from functools import partial
from math import log2
from typing import Any

import pytest
from django.db import OperationalError, transaction

from once import Routine, state
from once.exceptions import BatchError
from once.models import Anchor, Attempt, FailedItem, Now, State, Trigger, Wish
from once.record import anchors, failed_items, history, recorder, wishes
from once.results import Outcome, Reason, Result
from tests.items import Item, Pair, stock
from tests.shop.models import Effect
from tests.support import (
    attempts,
    begin,
    completions,
    conflict,
    effects,
    last,
    lost_connection,
    run,
    seed,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "sqlite"]),
    pytest.mark.usefixtures("item_tables"),
]


class Body:
    """Leaves an effect for each item, and raises where an item is bad."""

    def __init__(self, using: str, *bad: int) -> None:
        self.using, self.bad = using, {*bad}
        self.calls: list[list[int]] = []

    def __call__(self, batch: Any) -> None:
        numbers = [getattr(each, "number", each) for each in batch]
        self.calls.append(numbers)
        for number in numbers:
            Effect.objects.using(self.using).create(name=f"{number:03}")
        for number in numbers:
            if number in self.bad:
                self.fail(number)

    def fail(self, number: int) -> None:
        raise ValueError(f"bad {number}")


def fill(body: Body, **options: Any) -> Routine:
    """A routine over rows, which are recorded by their number."""
    return seed(
        body.using,
        **{
            "name": "shop.fill",
            "function": body,
            "over": lambda: Item.objects.order_by("number"),
            "batch_size": 8,
            "max_errors": 10,
            **options,
        },
    )


def again(routine: Routine) -> Result:
    """Try the failed items alone."""
    (result,) = run(routine, trigger=Trigger.ITEMS)
    return result


def failed(using: str) -> list[str]:
    return list(FailedItem.objects.using(using).order_by("pk").values_list("item", flat=True))


def named(*numbers: int) -> list[str]:
    return [f"{number:03}" for number in numbers]


ROWS: dict[str, Any] = {}
POSITIONS: dict[str, Any] = {"over": lambda: (number for number in range(1, 21))}
SOURCES = pytest.mark.parametrize("source", [ROWS, POSITIONS], ids=["rows", "positions"])


@SOURCES
def test_bad_items_are_left_behind_and_all_others_are_done(using: str, source: Any) -> None:
    stock(using, *range(1, 21))
    body = Body(using, 3, 4, 20)
    (result,) = run(fill(body, **source))
    assert result.outcome is Outcome.RAN
    assert result.message.startswith("3 items failed: `manage.py once items shop.fill` lists")
    assert failed(using) == ["3", "4", "20"]
    assert effects(using) == named(*({*range(1, 21)} - {3, 4, 20}))
    assert (last(using).state, last(using).processed) == ("succeeded", 20)
    assert run(fill(body, **source))[0].outcome is Outcome.ALREADY_DONE


@pytest.mark.parametrize("bad", [1, 32, 33, 64])
def test_batch_is_halved_down_to_the_item(using: str, bad: int) -> None:
    body = Body(using, bad)
    run(fill(body, over=lambda: range(1, 65), batch_size=64))
    assert failed(using) == [f"{bad}"]
    assert [bad] in body.calls
    # Beyond the batch, and the empty one at the end.
    assert len(body.calls) - 1 <= 2 * log2(64)
    assert len(effects(using)) == 63


def test_halves_of_which_none_fails_alone_are_done(using: str) -> None:
    """A body may fail for items together, as of a constraint between them."""
    stock(using, *range(1, 9))

    class Pairwise(Body):
        def fail(self, number: int) -> None:
            if len(self.calls[-1]) > 2:
                super().fail(number)

    body = Pairwise(using, 5)
    assert run(fill(body))[0].outcome is Outcome.RAN
    assert failed(using) == []
    assert effects(using) == named(*range(1, 9))


def test_errors_that_end_at_the_commit_are_of_the_items(using: str) -> None:
    class Deferred(Body):
        def fail(self, number: int) -> None:
            row = {"routine": "x", "version": 1, "scope_key": f"{number}", "number": 1}
            Anchor.objects.using(using).create(**row, attempt_id=999_999)

    stock(using, *range(1, 9))
    assert run(fill(Deferred(using, 5)))[0].outcome is Outcome.RAN
    assert failed(using) == ["5"]
    assert FailedItem.objects.using(using).get().error.startswith("IntegrityError: ")
    assert effects(using) == named(1, 2, 3, 4, 6, 7, 8)


def test_error_of_an_item_begins_at_the_body(using: str) -> None:
    stock(using, 1, 2, 3)
    run(fill(Body(using, 2)))
    first, heading, frame, *_ = FailedItem.objects.using(using).get().error.splitlines()
    assert (first, heading) == ("ValueError: bad 2", "Traceback (most recent call last):")
    assert frame.startswith(f'  File "{__file__}"')
    assert FailedItem.objects.using(using).get().number == 1


def test_item_beyond_the_limit_fails_the_routine_which_goes_on_there(using: str) -> None:
    stock(using, *range(1, 21))
    body = Body(using, 3, 5, 18)
    (result,) = run(fill(body, max_errors=1))
    assert result.outcome is Outcome.FAILED
    assert result.message.startswith(
        "Item 5 failed, after as many items as max_errors=1 admits. `manage.py once items "
        "shop.fill` lists those. ValueError: bad 5. Its committed batches stay;"
    )
    assert f'  File "{__file__}"' in last(using).error
    assert "once/engine" not in last(using).error.partition("direct cause")[0]
    assert (last(using).state, failed(using)) == ("failed", ["3"])
    assert effects(using) == named(1, 2, 4)
    body.bad = {18}
    body.calls.clear()
    (result,) = run(fill(body, max_errors=2))
    assert (result.outcome, result.message[:14]) == (Outcome.RAN, "2 items failed")
    assert body.calls[0] == [*range(5, 13)]
    assert failed(using) == ["3", "18"]


def test_without_max_errors_a_batch_fails_and_names_its_items(using: str) -> None:
    stock(using, *range(1, 21))
    body = Body(using, 12)
    (result,) = run(fill(body, max_errors=0))
    assert result.message.startswith("ValueError: bad 12, at items after 8 up to 16. Its committed")
    assert last(using).error.startswith("ValueError: bad 12, at items after 8 up to 16\nTraceback")
    assert last(using).error.splitlines()[2].startswith(f'  File "{__file__}"')
    assert failed(using) == []
    assert body.calls == [[*range(1, 9)], [*range(9, 17)]]
    (result,) = run(fill(body, max_errors=0, batch_size=1))
    while "at item 12." not in result.message:
        assert result.outcome is Outcome.FAILED
        body.calls.clear()
        (result,) = run(fill(body, max_errors=0, batch_size=1))


# Errors that are not of the items


def broken(number: int) -> Iterator[int]:
    yield from range(1, number)
    raise LookupError("no such file")


def test_error_of_over_is_of_no_item(using: str) -> None:
    (result,) = run(fill(Body(using, 1), over=lambda: broken(11)))
    assert result.message.startswith("LookupError: no such file. Its committed batches stay")
    assert last(using).error.splitlines()[2].startswith(f'  File "{__file__}"')
    assert failed(using) == ["1"]
    assert effects(using) == named(*range(2, 9))


def test_error_of_a_call_of_over_begins_there(using: str) -> None:
    def over() -> list[int]:
        raise LookupError("no such file")

    run(fill(Body(using), over=over))
    assert last(using).error.splitlines()[2].startswith(f'  File "{__file__}"')
    assert failed(using) == []


def raising(error: BaseException, body: Body, number: int) -> None:
    raise error


@pytest.mark.parametrize("make", [conflict, lost_connection], ids=["conflict", "lost"])
@SOURCES
@pytest.mark.parametrize("using", ["default"])
def test_another_transaction_in_the_way_is_of_no_item(using: str, make: Any, source: Any) -> None:
    stock(using, *range(1, 21))
    body = Body(using, 5)
    pending = [make(using)]

    def fail(number: int) -> None:
        if pending:
            raise pending.pop()

    body.fail = fail  # type: ignore[method-assign]
    (result,) = run(fill(body, **source))
    if make is conflict:
        assert result.outcome is Outcome.RAN
        assert effects(using) == named(*range(1, 21))
    assert failed(using) == []


def cancelled(using: str) -> OperationalError:
    error = OperationalError(1969, "took too long")
    error.sqlstate = "57014"  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize("using", ["default"])
@pytest.mark.parametrize(
    "make", [cancelled, lambda using: BatchError("stop")], ids=["cancelled", "once's own"]
)
def test_statement_that_took_too_long_is_of_no_item(using: str, make: Any) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    body.fail = partial(raising, make(using), body)  # type: ignore[method-assign]
    assert run(fill(body))[0].outcome is Outcome.FAILED
    assert failed(using) == []
    assert len(body.calls) == 1


def test_key_that_is_too_long_is_named(using: str) -> None:
    attempt = begin(fill(Body(using)))
    with pytest.raises(BatchError, match=r"whose key has 256 characters: .* 255 at most\. Order"):
        failed_items.add(attempt, "x" * 256, "", 1)
    assert failed_items.add(attempt, "x" * 255, "", 1)
    assert not failed_items.add(attempt, "y", "", 1)
    assert failed_items.add(attempt, "x" * 255, "again", 1)


# The last pass


@pytest.mark.parametrize("stops", [False, True], ids=["at once", "resumed there"])
def test_failed_item_is_not_called_for_again_in_the_last_pass(using: str, stops: bool) -> None:
    """Other rows behind the cursor are, those between failed items among them."""
    first = {*range(1, 13)} - {5}
    stock(using, *first)
    pending = [BatchError("stop")] * stops

    class Marking(Body):
        def __call__(self, batch: Any) -> None:
            numbers = [each.number for each in batch]
            if 0 in numbers and pending:
                raise pending.pop()
            super().__call__(batch)
            Item.objects.using(using).filter(number__in=numbers).update(is_done=True)
            if 12 in numbers:
                stock(using, 0, 5)

    body = Marking(using, 2, 3, 9)
    routine = fill(
        body,
        over=lambda: Item.objects.filter(is_done=False).order_by("number"),
        last_pass=True,
        batch_size=4,
    )
    if stops:
        assert run(routine)[0].outcome is Outcome.FAILED
    assert run(routine)[0].outcome is Outcome.RAN
    assert failed(using) == ["2", "3", "9"]
    assert effects(using) == named(*({*range(13)} - {2, 3, 9}))
    assert [call for call in body.calls if 2 in call] == [[1, 2, 3, 4], [1, 2], [2]]
    assert body.calls[-1] == [0, 5]
    assert last(using).processed == 13


# Failed items, tried once more


@SOURCES
def test_failed_items_alone_are_tried_each_once(using: str, source: Any) -> None:
    stock(using, *range(1, 21))
    body = Body(using, 3, 4, 18)
    run(fill(body, **source))
    body.bad = {4}
    body.calls.clear()
    result = again(fill(body, **source))
    assert result.outcome is Outcome.FAILED
    assert result.message.startswith(
        "Of 3 failed items, 1 failed again. Item 4: ValueError: bad 4. Items that did not fail are "
        "done. Fix"
    )
    assert f'  File "{__file__}"' in last(using).error
    assert body.calls == [[3], [4], [18]]
    assert failed(using) == ["4"]
    assert FailedItem.objects.using(using).get().number == 2
    body.bad = set()
    body.calls.clear()
    result = again(fill(body, **source, max_errors=0))
    assert (result.outcome, result.message) == (Outcome.RAN, "")
    assert body.calls == [[4]]
    assert effects(using) == named(*range(1, 21))
    assert failed(using) == []
    assert attempts(using) == [
        ("shop.fill", 1, "succeeded"),
        ("shop.fill", 2, "failed"),
        ("shop.fill", 3, "succeeded"),
    ]
    assert (last(using).trigger, last(using).processed) == (Trigger.ITEMS, 20)
    assert last(using).total == (20 if source is ROWS else None)
    assert run(fill(body, **source))[0].outcome is Outcome.ALREADY_DONE


def test_failed_item_of_a_composite_key(using: str) -> None:
    Pair.objects.using(using).bulk_create(Pair(left=1, right=number) for number in range(5))
    bad, seen = {3}, list[int]()

    def body(batch: Any) -> None:
        rights = [each.right for each in batch]
        if bad.intersection(rights):
            raise ValueError
        seen.extend(rights)

    routine = fill(Body(using), function=body, over=Pair.objects.all)
    assert run(routine)[0].outcome is Outcome.RAN
    assert failed(using) == ['["1", "3"]']
    bad.clear()
    assert again(routine).outcome is Outcome.RAN
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_failed_item_that_is_gone_is_failed_no_more(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    run(fill(body))
    Item.objects.using(using).filter(number=5).delete()
    body.calls.clear()
    assert again(fill(body)).outcome is Outcome.RAN
    assert (body.calls, failed(using)) == ([], [])


def test_items_that_moved_are_refused(using: str) -> None:
    source = [*range(1, 9)]
    body = Body(using, 5)
    run(fill(body, over=lambda: source))
    source.insert(0, 0)
    result = again(fill(body, over=lambda: source))
    assert "returned 9 items now, and 8 in an earlier attempt" in result.message
    assert failed(using) == ["5"]


def test_failed_items_are_tried_of_what_is_completed_alone(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    result = again(fill(body))
    assert (result.outcome, result.message) == (
        Outcome.SKIPPED,
        "It is not completed. Call `manage.py once run shop.fill` first.",
    )
    assert body.calls == []


@pytest.mark.parametrize("using", ["default"])
def test_conflict_has_an_item_tried_again_and_not_fail(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    run(fill(body))
    pending = [conflict(using)]

    def fail(number: int) -> None:
        if pending:
            raise pending.pop()

    body.fail = fail  # type: ignore[method-assign]
    assert again(fill(body)).outcome is Outcome.RAN
    assert effects(using) == named(*range(1, 9))
    assert last(using).number == 2


def test_paused_routine_has_no_item_tried(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    run(fill(body))
    wishes.add(using, "shop.fill", Wish.Kind.PAUSE, user="ada", reason="")
    body.calls.clear()
    assert again(fill(body)).reason is Reason.PAUSED
    assert (body.calls, failed(using)) == ([], ["5"])


# Failed items, and what a person or the code decides


def test_reset_begins_anew_and_a_record_by_hand_says_that_all_is_done(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    run(fill(body))
    run(fill(body), trigger=Trigger.RESET, even_done=True)
    assert failed(using) == []
    body.bad = {5, 6}
    assert run(fill(body, max_errors=1))[0].outcome is Outcome.FAILED
    run(fill(body), trigger=Trigger.RESET)  # goes on where it stands
    assert failed(using) == ["5"]
    run(fill(body), trigger=Trigger.FAKE)
    assert failed(using) == []


def test_person_may_record_failed_items_as_done(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    routine = fill(body)
    run(routine)
    (result,) = run(routine, trigger=Trigger.FAKE, user="ada", reason="sold out")
    assert (result.outcome, failed(using)) == (Outcome.RECORDED, [])
    assert (last(using).trigger, last(using).reason) == ("fake", "sold out")
    assert run(routine, trigger=Trigger.FAKE)[0].outcome is Outcome.ALREADY_DONE
    assert (last(using).number, len(completions(using))) == (2, 1)


def test_hook_that_fails_hides_no_failed_items(using: str) -> None:
    class Hooked(Body):
        def __call__(self, batch: Any) -> None:
            transaction.on_commit(partial(int, "no number"), using=using)
            super().__call__(batch)

    stock(using, *range(1, 9))
    (result,) = run(fill(Hooked(using, 5)))
    assert result.message.startswith("Done and recorded, but afterwards: ValueError")
    assert result.message.endswith(failed_items.explain("shop.fill", 1))


def test_version_has_failed_items_of_its_own(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    run(fill(body))
    body.bad = {6}
    run(fill(body, version=2))
    assert failed(using) == ["5", "6"]
    assert failed_items.counts([fill(body, version=2)]) == {"shop.fill": 1}
    assert [each.item for each in failed_items.last(fill(body, version=2), None)] == ["6"]
    assert failed_items.names(fill(body)) == ["5"]


def test_value_of_a_state_has_failed_items_of_its_own(using: str) -> None:
    stock(using, *range(1, 9))
    values = ["a", "b"]
    routines = [fill(Body(using, 5), scope=state(value)) for value in map(constant, values)]
    run(routines[0])
    assert [failed_items.counts([each]) for each in routines] == [{"shop.fill": 1}, {}]


def constant(value: str) -> Callable[[], str]:
    return lambda: value


def test_routine_with_failed_items_is_not_done_for_what_comes_after_it(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    after = seed(using, "shop.next", after=["shop.fill"])
    _, result = run(fill(body), after)
    assert result.outcome is Outcome.SKIPPED
    assert result.message.startswith(
        "Not tried, since shop.fill must be done before: 1 item failed: `manage.py once items "
    )
    assert history.undone([fill(body)]) == ["shop.fill"]
    # Also where the code has no max_errors any more.
    assert run(fill(body, max_errors=0), after)[1].outcome is Outcome.SKIPPED
    body.bad = set()
    again(fill(body))
    assert history.undone([fill(body)]) == []
    assert run(fill(body), after)[1].outcome is Outcome.RAN


def test_failed_items_and_wishes_are_carried_over_to_another_name(using: str) -> None:
    stock(using, *range(1, 9))
    body = Body(using, 5)
    run(fill(body, name="shop.old"))
    wishes.add(using, "shop.old", Wish.Kind.SET, version=1, user="ada", reason="", batch_size=3)
    wishes.add(using, "shop.fill", Wish.Kind.PAUSE, user="ada", reason="stop")
    routine = fill(body, renamed_from="shop.old")
    run(routine)
    assert failed_items.names(routine) == ["5"]
    [item] = FailedItem.objects.using(using).all()
    row = Attempt.objects.using(using).get(routine="shop.fill", trigger="test")
    assert item.number == row.number
    made = Wish.objects.using(using).order_by("number")
    assert [*made.values_list("routine", "number", "kind")] == [
        ("shop.fill", 1, "pause"),
        ("shop.fill", 2, "set"),
        ("shop.fill", 3, "pause"),
    ]
    body.bad = set()
    assert again(routine).reason is Reason.PAUSED
    wishes.add(using, "shop.fill", Wish.Kind.RESUME, user="ada", reason="")
    assert again(routine).outcome is Outcome.RAN
    assert effects(using) == named(*range(1, 9))


@pytest.mark.parametrize(
    ("old", "new", "is_paused"),
    [
        (["pause"], [], True),
        (["set"], ["pause"], True),
        (["pause"], ["set"], True),
        (["pause"], ["pause", "resume"], False),
        (["pause", "resume"], ["pause"], True),
    ],
)
def test_pause_outlives_a_rename(
    using: str, old: list[str], new: list[str], is_paused: bool
) -> None:
    """Only what a person wanted under the present name can end it."""
    stock(using, *range(1, 9))
    body = Body(using)
    recorder.close(begin(fill(body, name="shop.old")), State.INTERRUPTED, body_not_started=True)
    for name, kinds in (("shop.old", old), ("shop.fill", new)):
        for kind in kinds:
            values = {"version": 1, "batch_size": 3} if kind == "set" else {}
            wishes.add(using, name, Wish.Kind(kind), user="ada", reason="", **values)
    (result,) = run(fill(body, renamed_from="shop.old"))
    assert result.outcome is (Outcome.SKIPPED if is_paused else Outcome.RAN)


def test_failed_items_of_superseded_code_are_no_obstacle(using: str) -> None:
    """A release that was rolled back cannot try them."""
    stock(using, *range(1, 9))
    run(fill(Body(using, 5)))
    run(fill(Body(using), version=2))
    after = seed(using, "shop.next", after=["shop.fill"])
    assert run(fill(Body(using)), after)[1].outcome is Outcome.RAN


def test_iterator_that_is_returned_once_more_is_refused(using: str) -> None:
    items = iter(range(1, 9))
    (result,) = run(fill(Body(using, 5), over=lambda: items))
    assert result.outcome is Outcome.FAILED
    assert "Have it return the same items on every call, not an iterator." in result.message


def test_items_whose_keys_differ_in_a_blank_are_two(using: str) -> None:
    """MySQL's usual collations take them for the same text."""
    attempt = begin(fill(Body(using)))
    assert all(failed_items.add(attempt, item, "", 2) for item in ("a", "a "))
    assert failed_items.names(attempt) == ["a", "a "]


def test_failed_items_of_two_names_are_each_one_item(using: str) -> None:
    stock(using, *range(1, 9))
    run(fill(Body(using, 5, 6), name="shop.old"))
    run(fill(Body(using, 6, 7)))
    routine = fill(Body(using), renamed_from="shop.old")
    run(routine)
    assert sorted(failed_items.names(routine)) == ["5", "6", "7"]


def test_prune_leaves_failed_items_and_the_last_wish(using: str) -> None:
    stock(using, *range(1, 9))
    run(fill(Body(using, 5)))
    for kind in (Wish.Kind.PAUSE, Wish.Kind.RESUME):
        wishes.add(using, "shop.fill", kind, user="ada", reason="")
    anchors.prune(using, 30)
    assert Wish.objects.using(using).count() == 2
    anchors.prune(using, -1)
    assert failed(using) == ["5"]
    assert [*Wish.objects.using(using).values_list("kind", flat=True)] == ["resume"]


def test_forget_removes_failed_items_and_wishes(using: str) -> None:
    stock(using, *range(1, 9))
    run(fill(Body(using, 5)))
    wishes.add(using, "shop.fill", Wish.Kind.PAUSE, user="ada", reason="")
    assert anchors.forget(using, "shop.fill") == {
        "anchors": 1,
        "attempts": 1,
        "completions": 1,
        "failed items": 1,
        "wishes": 1,
    }


def test_last_failed_items_come_last(using: str) -> None:
    attempt = begin(fill(Body(using)))
    rows = [("9", 1), ("8", 2), ("7", 1), ("6", 3)]
    for item, number in rows:
        FailedItem.objects.using(using).create(
            routine="shop.fill", version=1, item=item, number=number, failed_at=Now()
        )
    assert [each.item for each in failed_items.last(fill(Body(using)), 3)] == ["7", "8", "6"]
    assert failed_items.names(attempt) == ["9", "8", "7", "6"]
