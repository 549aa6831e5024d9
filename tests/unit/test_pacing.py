"""Sizes of batches by the time that they take, and rests, by a clock of the test's own."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from once import Routine
from once.engine import pacing
from once.engine.pacing import Pacing
from once.models import Attempt


class Clock:
    """A clock that only sleeping, and a batch, moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        monkeypatch.setattr(pacing, "monotonic", lambda: self.now)
        monkeypatch.setattr(pacing, "time", SimpleNamespace(sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(Pacing, "_take", lambda self: None)
    return clock


def paced(**options: Any) -> Pacing:
    """The pace of a routine, of which nobody wants another."""
    routine = Routine(function=lambda batch: None, name="shop.fill", over=list, **options)
    nothing = SimpleNamespace(
        close=lambda: None, check=lambda: None, in_atomic_block=False, connection=None
    )
    here = SimpleNamespace(connection=nothing, statements=nullcontext, is_server=True)
    work = SimpleNamespace(routine=routine, here=here, lock=nothing, attempt=Attempt())
    return Pacing(cast("Any", work))


def sizes(pace: Pacing, batches: int, seconds_of_an_item: float) -> list[int]:
    """The sizes of batches that take so long for each item."""
    found = []
    for _ in range(batches):
        found.append(pace.size)
        pace.took(pace.size, pace.size * seconds_of_an_item)
    return found


def test_without_batch_seconds_every_batch_is_as_large_as_it_may_be() -> None:
    assert sizes(paced(batch_size=500), 3, 1.0) == [500, 500, 500]


def test_batches_begin_with_a_tenth_and_double_until_they_take_as_long_as_wanted() -> None:
    pace = paced(batch_size=10_000, batch_seconds=0.5)
    assert sizes(pace, 5, 0.0001) == [1000, 2000, 4000, 5000, 5000]


def test_no_batch_is_larger_than_batch_size() -> None:
    assert sizes(paced(batch_size=100, batch_seconds=0.5), 6, 0.0) == [10, 20, 40, 80, 100, 100]


def test_slow_batch_makes_the_next_one_as_much_smaller_at_once() -> None:
    pace = paced(batch_size=1000, batch_seconds=0.5)
    pace.took(1000, 5.0)
    assert pace.size == 100


@pytest.mark.parametrize("batch_size", [1, 3, 9])
def test_no_batch_is_smaller_than_one_item(batch_size: int) -> None:
    pace = paced(batch_size=batch_size, batch_seconds=0.001)
    assert sizes(pace, 3, 60.0) == [1, 1, 1]


def test_sizes_follow_items_that_get_slower_and_faster() -> None:
    pace = paced(batch_size=10_000, batch_seconds=1)
    assert sizes(pace, 2, 0.001) == [1000, 1000]
    assert sizes(pace, 2, 0.01) == [1000, 100]
    assert sizes(pace, 5, 0.001) == [100, 200, 400, 800, 1000]


@pytest.mark.parametrize(("rest", "slept"), [(0, []), (0.25, [0.25]), (1, [1]), (2.5, [1, 1, 0.5])])
def test_rest_is_taken_in_parts_of_a_second(clock: Clock, rest: float, slept: list[float]) -> None:
    paced(rest=rest).rest()
    assert clock.slept == slept


def test_rest_that_a_person_changes_meanwhile_counts_from_its_beginning(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = paced(rest=60)

    def take(self: Pacing) -> None:
        if len(clock.slept) == 2:
            self._pace = paced(rest=3.5)._pace

    monkeypatch.setattr(Pacing, "_take", take)
    pace.rest()
    assert clock.slept == [1, 1, 1, 0.5]


def test_throttles_are_asked_after_the_rest_and_before_the_first_batch(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    answers = [5.0, 0.25, 0.0, 0.0]

    def answer(self: Pacing) -> float:
        asked.append(clock.now - 1000)
        return answers.pop(0)

    monkeypatch.setattr(Pacing, "_throttled", answer)
    pace = paced(rest=2)
    pace.wait()
    assert (asked, clock.slept) == ([0, 1, 1.25], [1, 0.25])
    pace.rest()
    assert asked[3:] == [3.25]
