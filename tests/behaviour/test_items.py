"""Batches of items that are no rows: their order, and where the next attempt goes on."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from once import Run, signals
from once.exceptions import BatchError
from once.results import Outcome
from once.routines import batches
from tests.contract.test_batches import Bodies, failing_at, numbers, over, told
from tests.support import (
    attempts,
    effects,
    last,
    receiving,
    run,
    seed,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.mark.parametrize(
    "source",
    [
        lambda: [1, 2, 3],
        lambda: (1, 2, 3),
        lambda: range(1, 4),
        lambda: {1: "a", 2: "b", 3: "c"},
        numbers,
        lambda: iter([1, 2, 3]),
        lambda: map(int, "123"),
    ],
    ids=["list", "tuple", "range", "dict", "generator", "iterator", "map"],
)
def test_items_are_gone_through_in_their_order(using: str, source: Callable[[], Any]) -> None:
    body = Bodies()
    assert run(over(source, using, body))[0].outcome is Outcome.RAN
    assert body.batches == [[1, 2], [3]]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_last_batch_of_items_may_be_a_full_one(using: str, count: int) -> None:
    body = Bodies()
    assert run(over(range(count), using, body))[0].outcome is Outcome.RAN
    assert body.items == list(range(count))
    assert [] not in body.batches


@pytest.mark.parametrize("is_failing", [False, True], ids=["at the end", "after a failure"])
def test_open_file_is_gone_through_by_line_and_closed(
    using: str, tmp_path: Path, is_failing: bool
) -> None:
    (tmp_path / "rows.csv").write_text("a\nb\nc\n")
    opened: list[Any] = []

    def source() -> Iterable[str]:
        opened.append((tmp_path / "rows.csv").open())
        return opened[0]  # type: ignore[no-any-return]

    body = failing_at("c\n", using) if is_failing else Bodies()
    (result,) = run(over(source, using, body))
    assert result.outcome is (Outcome.FAILED if is_failing else Outcome.RAN)
    assert opened[0].closed
    if isinstance(body, Bodies):
        assert body.batches == [["a\n", "b\n"], ["c\n"]]


@pytest.mark.parametrize("value", [None, 3, "a.csv", b"a.csv", object()])
def test_what_is_not_made_of_items_is_refused(value: object) -> None:
    with pytest.raises(BatchError) as refusal:
        batches.batches(over(lambda: value))
    assert f"over= of shop.fill returned {type(value).__name__}. Return a" in str(refusal.value)


def test_error_of_over_fails_the_routine_before_its_body(using: str) -> None:
    def source() -> None:
        raise LookupError("no such file")

    body = Bodies()
    (result,) = run(over(source, using, body))
    assert "LookupError: no such file" in result.message
    assert attempts(using) == [("shop.fill", 1, "failed")]
    assert body.batches == []


def test_last_pass_is_for_querysets() -> None:
    with pytest.raises(BatchError, match=r"is for a queryset .*over= returned list\. Remove it"):
        batches.batches(over([1, 2], last_pass=True))


def test_iterator_is_not_read_ahead(using: str) -> None:
    read: list[int] = []
    at_body: list[list[int]] = []

    def source() -> Iterator[int]:
        for number in range(5):
            read.append(number)
            yield number

    run(over(source, using, lambda batch: at_body.append(list(read))))
    assert at_body == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]]


def test_total_of_an_iterator_is_unknown(using: str) -> None:
    heard, _ = told(over(numbers, using))
    assert heard == [(2, None, 0), (3, None, 0)]
    assert last(using).total is None


def test_resumed_attempt_that_fails_at_once_does_not_lose_the_place(using: str) -> None:
    fails = 3
    body = Bodies()

    def stubborn(batch: list[int]) -> None:
        nonlocal fails
        if 3 in batch and fails:
            fails -= 1
            raise LookupError
        body(batch)

    routine = over([1, 2, 3], using, stubborn)
    outcomes = [run(routine)[0].outcome for _ in range(4)]
    assert outcomes == [Outcome.FAILED] * 3 + [Outcome.RAN]
    assert body.batches == [[1, 2], [3]]
    assert last(using).resumed == 2


def test_batch_size_may_change_between_attempts(using: str) -> None:
    body = failing_at(4, using)
    run(over([1, 2, 3, 4, 5], using, body))
    run(over([1, 2, 3, 4, 5], using, body, batch_size=100))
    assert effects(using) == ["1", "2", "3", "4", "5"]


def test_items_of_another_number_are_refused_where_it_went_on(using: str) -> None:
    source = [1, 2, 3, 4]
    body = failing_at(4, using)
    routine = over(lambda: source, using, body)
    run(routine)
    source.insert(0, 0)
    (result,) = run(routine)
    assert isinstance(result.error, BatchError)
    assert "returned 5 items now, and 4 in an earlier attempt" in result.message
    assert "raise version= to begin anew" in result.message
    assert effects(using) == ["1", "2"]
    source.pop(0)
    assert run(routine)[0].outcome is Outcome.RAN
    assert effects(using) == ["1", "2", "3", "4"]


def test_items_of_another_number_are_taken_where_nothing_was_done(using: str) -> None:
    source = [1, 2, 3]
    routine = over(lambda: source, using, failing_at(1, using))
    run(routine)
    source.append(4)
    assert run(routine)[0].outcome is Outcome.RAN
    assert effects(using) == ["1", "2", "3", "4"]


def test_items_that_became_fewer_than_are_done_are_refused(using: str) -> None:
    source = [1, 2, 3]
    routine = over(lambda: iter(source), using, failing_at(3, using))
    run(routine)
    source[:] = [3]
    (result,) = run(routine)
    assert isinstance(result.error, BatchError)
    assert "returned only 1 items now, and 2 are done" in result.message
    assert effects(using) == ["1", "2"]


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "external"])
def test_routine_that_has_no_over_any_more_is_refused_where_batches_were_begun(
    using: str, atomic: bool
) -> None:
    calls: list[int] = []
    run(over([1, 2, 3, 4], using, failing_at(4, using)))
    (result,) = run(seed(using, "shop.fill", function=lambda: calls.append(1), atomic=atomic))
    assert isinstance(result.error, BatchError)
    assert "has no over= any more, but batches of this version were begun" in result.message
    assert calls == []


def test_higher_version_begins_at_the_start(using: str) -> None:
    run(over([1, 2, 3, 4], using, failing_at(4, using)))
    body = Bodies()
    run(over([1, 2, 3, 4], using, body, version=2))
    assert body.items == [1, 2, 3, 4]


def test_receiver_of_progress_that_raises_does_not_disturb(using: str) -> None:
    def fail(**kwargs: Any) -> None:
        raise LookupError

    body = Bodies()
    with receiving(signals.progressed, fail):
        (result,) = run(over([1, 2, 3], using, body))
    assert (result.outcome, result.message) == (Outcome.RAN, "")
    assert body.items == [1, 2, 3]


def test_body_is_told_the_same_of_every_batch_of_an_attempt(using: str) -> None:
    heard: list[Any] = []

    def body(batch: list[int], run: Run) -> None:
        run.check()
        heard.append((run.using, run.attempt, run.key))

    run(over([1, 2, 3], using, body))
    assert heard == [(using, 1, last(using).key)] * 2
