"""What a guard makes of its session's answers, without a server."""

import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper

from once import guards
from once.exceptions import GuardLost, InsideRun
from once.guards import Guard, Place, SessionGuard

LIVENESS = 15.0


class Plain(SessionGuard):
    """Answers what a test says, and notes what it was asked."""

    place = Place.HOLDER
    error: Exception | None = None

    def __init__(self, before: "Plain | None" = None) -> None:
        super().__init__("default", "shop.seed", LIVENESS, before)
        self.asked: list[str] = []

    def connect(self) -> BaseDatabaseWrapper:
        raise AssertionError

    def take(self) -> Place:
        self.asked.append("take")
        if self.error is not None:
            raise self.error
        return self.place

    def set_liveness(self) -> None:
        self.asked.append(f"liveness {self.liveness}")

    def look(self) -> bool:
        self.asked.append("look")
        return True

    def find_holder(self) -> bool:
        self.asked.append("find holder")
        return True

    def end(self) -> None:
        raise AssertionError

    def show_life(self) -> None:
        self.asked.append("show life")


class Session:
    """Stands for a session: calls in the caller's thread."""

    def __init__(self) -> None:
        self.is_lost = False
        self.is_closed = False
        self.is_silent = False
        self.answered = time.monotonic()
        self.took = 0.0
        self.timeouts: list[float] = []
        self.limits: list[float | None] = []
        self.checks = 0
        self.before_call: Callable[[], None] = lambda: None

    def call(self, function: Callable[[], Any], timeout: float) -> Any:
        self.timeouts.append(timeout)
        self.before_call()
        return function()

    def ask(self, function: Callable[[], Any]) -> Any:
        return function()

    prove = ask

    def check(self) -> None:
        self.checks += 1

    def fall_silent(self) -> None:
        self.is_silent = True

    def give_up_in(self, seconds: float | None) -> None:
        self.limits.append(seconds)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plain]:
    monkeypatch.setattr(guards, "Session", lambda guard: Session())
    guard = Plain()
    yield guard
    guard.release()
    assert guard.identity not in guard._threads


def session_of(guard: SessionGuard) -> Any:
    """The session that a guard opened."""
    assert guard._session is not None
    return guard._session


class Least(Guard):
    """What every guard has of its own, and no more."""

    identity = "least"

    def __init__(self) -> None:
        self.releases = 0

    def acquire(self, within: float = inf) -> bool:
        return True

    def release(self) -> None:
        self.releases += 1


def test_guard_that_says_no_more_is_tried_often_and_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(guards, "time", SimpleNamespace(sleep=slept.append))
    with Least() as guard:
        assert guard.is_worth_trying()
        assert guard.find_holder()
        assert guard.longest_pause == 5.0
        guard.attend(2.0)
        assert slept == [2.0]
        assert guard.read(lambda: "seen") == "seen"
        guard.step_back()
        assert guard.releases == 1
    assert guard.releases == 2


def test_guard_that_is_not_held_says_whose_it_is(guard: Plain) -> None:
    with pytest.raises(GuardLost, match=r"The guard of shop\.seed is not held"):
        guard.check()


def test_guard_falls_silent_in_its_session(guard: Plain) -> None:
    guard.acquire()
    guard.fall_silent()
    assert session_of(guard).is_silent


def test_holder_is_marked_and_keeps_its_session(guard: Plain) -> None:
    assert guard.acquire()
    assert guard.is_marked
    assert not guard.is_heir
    assert session_of(guard).holder is guard
    with pytest.raises(InsideRun):
        Plain().refuse_own_thread()


def test_heir_keeps_its_session_and_is_not_marked(guard: Plain) -> None:
    guard.place = Place.HEIR
    guard._turn.set()
    assert not guard.acquire()
    assert guard.is_heir
    assert not guard.is_marked
    assert not guard._turn.is_set()
    assert not session_of(guard).is_closed
    guard.refuse_own_thread()


def test_who_is_neither_closes_its_session(guard: Plain) -> None:
    guard.place = Place.HEIR
    guard.acquire()
    session = session_of(guard)
    guard.place = Place.NONE
    assert not guard.acquire()
    assert session.is_closed
    assert not guard.is_heir
    assert guard._session is None


def test_heir_that_becomes_the_holder_is_no_heir_any_more(guard: Plain) -> None:
    guard.place = Place.HEIR
    guard.acquire()
    guard.place = Place.HOLDER
    assert guard.acquire()
    assert not guard.is_heir


def test_error_of_an_heir_that_asks_ends_its_session_and_place(guard: Plain) -> None:
    guard.place = Place.HEIR
    guard.acquire()
    session = session_of(guard)
    guard.error = GuardLost("gone")
    with pytest.raises(GuardLost):
        guard.acquire()
    assert session.is_closed
    assert not guard.is_heir


def test_answer_that_comes_when_nobody_waits_for_it_makes_no_heir(guard: Plain) -> None:
    guard.place = Place.HEIR
    guard._open()
    session_of(guard).before_call = lambda: setattr(guard, "_session", None)
    guard.acquire()
    assert not guard.is_heir


def test_lost_session_is_replaced(guard: Plain) -> None:
    guard.acquire()
    lost = session_of(guard)
    lost.is_lost = True
    assert guard.acquire()
    assert lost.is_closed
    assert session_of(guard) is not lost


@pytest.mark.parametrize(("within", "timeout"), [(60.0, 35.0), (4.0, 4.0)])
def test_answer_is_waited_for_as_long_as_the_caller_or_twice_the_liveness_allows(
    guard: Plain, within: float, timeout: float
) -> None:
    guard.acquire(within)
    assert session_of(guard).timeouts == [timeout]


def test_liveness_that_was_kept_longer_is_the_usual_one_at_the_next_try(guard: Plain) -> None:
    guard.acquire()
    guard.keep(60.0)
    assert guard.asked == ["take", "liveness 60.0"]
    assert session_of(guard).timeouts == [35.0, 60.0]
    guard.acquire()
    assert guard.liveness == LIVENESS


def test_next_guard_takes_over_the_session_and_the_mark_is_gone(guard: Plain) -> None:
    guard.acquire()
    session = session_of(guard)
    follower = Plain(guard)
    assert guard._session is None
    assert not guard.is_marked
    follower.refuse_own_thread()
    follower.acquire()
    assert session_of(follower) is session
    assert session.holder is follower
    follower.release()


def test_release_of_a_mark_frees_the_name_for_this_thread(guard: Plain) -> None:
    guard.acquire()
    guard.release()
    assert not guard.is_marked
    guard.refuse_own_thread()
    other = Plain()
    other.acquire()
    guard.release()  # again: the mark is another's now
    with pytest.raises(InsideRun):
        guard.refuse_own_thread()
    other.release()


@pytest.mark.parametrize(
    ("place", "stays"), [(Place.HEIR, True), (Place.HOLDER, False), (Place.NONE, False)]
)
def test_only_an_heir_steps_back_without_leaving(guard: Plain, place: Place, stays: bool) -> None:
    guard.place = place
    guard.acquire()
    guard.step_back()
    assert guard.is_heir is stays
    assert (guard._session is not None) is stays


def test_heir_that_lost_its_place_steps_back_and_leaves(guard: Plain) -> None:
    guard.place = Place.HEIR
    guard.acquire()
    session = session_of(guard)
    guard.place = Place.NONE
    guard.beat()
    assert not session.is_closed
    guard.step_back()
    assert session.is_closed


def test_release_takes_the_turn_of_an_heir(guard: Plain) -> None:
    guard.place = Place.HEIR
    guard.acquire()
    guard._turn.set()
    guard.release()
    assert not guard._turn.is_set()
    assert not guard.is_heir


@pytest.mark.parametrize(
    ("has_heirs", "is_marked", "seconds"),
    [(True, False, 60.0), (True, True, 5.0), (False, False, 5.0)],
)
def test_longest_pause_is_long_where_an_heir_looks(
    guard: Plain, has_heirs: bool, is_marked: bool, seconds: float
) -> None:
    guard.has_heirs, guard.is_marked = has_heirs, is_marked
    assert guard.longest_pause == seconds


def test_new_guard_may_have_heirs_and_is_none(guard: Plain) -> None:
    assert guard.has_heirs
    assert not guard.is_heir
    assert not guard.is_marked


def test_heir_tries_again_where_it_is_its_turn_and_asks_nobody(guard: Plain) -> None:
    guard.is_heir = True
    assert not guard.is_worth_trying()
    guard._turn.set()
    assert guard.is_worth_trying()
    assert guard.asked == []


@pytest.mark.parametrize(
    ("has_heirs", "asked"), [(True, ["look"]), (False, ["find holder", "look"])]
)
def test_others_look_and_at_the_holder_where_nobody_else_does(
    guard: Plain, has_heirs: bool, asked: list[str]
) -> None:
    guard.has_heirs = has_heirs
    assert guard.is_worth_trying()
    assert guard.asked == asked


def test_heir_attends_its_turn_and_others_sleep(
    guard: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(guards, "time", SimpleNamespace(sleep=slept.append))
    guard.attend(3.0)
    assert slept == [3.0]
    guard.is_heir = True
    began = time.monotonic()
    guard.attend(0.05)
    assert time.monotonic() - began > 0.04
    guard._turn.set()
    guard.attend(3.0)
    assert time.monotonic() - began < 3.0
    assert slept == [3.0]


@pytest.mark.parametrize(("age", "asked"), [(1.4, []), (1.6, ["show life"])])
def test_confirm_asks_where_the_last_answer_is_older_than_a_tenth_of_the_liveness(
    guard: Plain, age: float, asked: list[str]
) -> None:
    guard.acquire()
    guard.asked.clear()
    session = session_of(guard)
    session.answered = time.monotonic() - age
    guard.confirm()
    assert guard.asked == asked
    assert session.checks == (not asked)


def test_check_asks_the_session_alone(guard: Plain) -> None:
    guard.acquire()
    guard.check()
    assert session_of(guard).checks == 1
    assert guard.asked == ["take"]


def test_yielding_gives_up_after_1_to_3_seconds_and_not_after_its_end(
    guard: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.acquire()
    monkeypatch.setattr("random.uniform", lambda *between: between)

    def wait() -> None:
        with guard.yielding():
            assert session_of(guard).limits == [(1.0, 3.0)]
            raise LookupError

    with pytest.raises(LookupError):
        wait()
    assert session_of(guard).limits == [(1.0, 3.0), None]


@pytest.mark.parametrize(
    ("silence", "freed_in"), [(0.0, None), (7.4, None), (7.5, 7.5), (14.0, 1.0), (15.0, None)]
)
def test_holder_that_is_late_to_ping_is_expected_to_end(
    guard: Plain, silence: float, freed_in: float | None
) -> None:
    guard.freed_in = 99.0
    guard.expect_end(silence)
    assert guard.freed_in == freed_in


@pytest.mark.parametrize(
    ("is_heir", "is_turn", "took", "interval"),
    [
        (False, False, 0.0, 5.0),
        (True, False, 0.0, 0.05),
        (True, False, 0.02, 0.2),
        (True, False, 9.0, 5.0),
        (True, True, 0.0, 5.0),
    ],
    ids=["holder", "heir", "slow server", "very slow server", "heir that is not told yet"],
)
def test_interval_of_signs_of_life(
    guard: Plain, is_heir: bool, is_turn: bool, took: float, interval: float
) -> None:
    guard._open()
    session_of(guard).took = took
    guard.is_heir = is_heir
    if is_turn:
        guard._turn.set()
    assert guard.interval == pytest.approx(interval)


def test_interval_of_an_heir_without_a_session_is_a_holders(guard: Plain) -> None:
    guard.is_heir = True
    assert guard.interval == 5.0


@pytest.mark.parametrize(("is_heir", "is_turn"), [(False, False), (True, True)])
def test_beat_shows_life_of_who_has_the_lock(guard: Plain, is_heir: bool, is_turn: bool) -> None:
    guard.is_heir = is_heir
    if is_turn:
        guard._turn.set()
    guard.beat()
    assert guard.asked == ["show life"]


@pytest.mark.parametrize(
    ("place", "stays", "is_told"),
    [(Place.HEIR, True, False), (Place.HOLDER, True, True), (Place.NONE, False, True)],
)
def test_beat_of_an_heir_tries_the_lock_and_tells_what_changed(
    guard: Plain, place: Place, stays: bool, is_told: bool
) -> None:
    guard.is_heir, guard.place = True, place
    guard.beat()
    assert guard.asked == ["take"]
    assert guard.is_heir is stays
    assert guard._turn.is_set() is is_told


def test_beat_of_an_heir_that_fails_tells_it(guard: Plain) -> None:
    guard.is_heir, guard.error = True, LookupError()
    with pytest.raises(LookupError):
        guard.beat()
    assert guard._turn.is_set()


def test_other_threads_may_wait_for_who_holds_it(guard: Plain) -> None:
    guard.acquire()
    raised: list[Exception] = []

    def ask() -> None:
        try:
            Plain().refuse_own_thread()
        except InsideRun as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(30)
    assert raised == []
