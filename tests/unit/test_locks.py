"""What a lock makes of its session's answers, without a server."""

import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases import lock as locks
from once.databases import session_lock
from once.databases.lock import AdvisoryLock
from once.databases.session_lock import SessionLock
from once.databases.standby import Place
from once.exceptions import InsideRun, LockLost

LIVENESS = 15.0


class Plain(SessionLock):
    """Answers what a test says, and notes what it was asked."""

    place = Place.HOLDER
    error: Exception | None = None

    def __init__(self) -> None:
        super().__init__("default", "shop.seed", LIVENESS)
        self.asked: list[str] = []

    def connect(self) -> BaseDatabaseWrapper:
        raise AssertionError

    def take(self, name: str) -> Place:
        self.asked.append(f"take {name}")
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
        self.timeouts: list[float] = []
        self.limits: list[float | None] = []
        self.checks = 0
        self.before_call: Callable[[], None] = lambda: None

    def ask(self, function: Callable[[], Any], timeout: float) -> Any:
        self.timeouts.append(timeout)
        self.before_call()
        return function()

    def check(self) -> None:
        self.checks += 1

    def stop_heartbeat(self) -> None:
        self.is_silent = True

    def abandon_after(self, seconds: float | None) -> None:
        self.limits.append(seconds)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plain]:
    monkeypatch.setattr(session_lock, "Session", lambda lock: Session())
    lock = Plain()
    yield lock
    lock.release()
    assert not lock.is_owned


def session_of(lock: SessionLock) -> Any:
    """The session that a lock opened."""
    assert lock._session is not None
    return lock._session


class Least(AdvisoryLock):
    """What every lock has of its own, and no more."""

    identity = "least"

    def __init__(self) -> None:
        self.releases = 0

    def acquire(self, within: float = inf) -> bool:
        return True

    def release(self) -> None:
        self.releases += 1


def test_lock_that_says_no_more_is_tried_often_and_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(locks, "time", SimpleNamespace(sleep=slept.append))
    with Least() as lock:
        assert lock.is_worth_trying()
        assert lock.find_holder()
        assert lock.longest_pause == 5.0
        lock.wait(2.0)
        assert slept == [2.0]
        assert lock.read(lambda: "seen") == "seen"
        lock.release_unless_standby()
        assert lock.releases == 1
    assert lock.releases == 2


def test_lock_that_is_not_held_says_whose_it_is(lock: Plain) -> None:
    with pytest.raises(LockLost, match=r"The lock of shop\.seed is not owned"):
        lock.check()


def test_lock_falls_silent_in_its_session(lock: Plain) -> None:
    lock.acquire()
    lock.stop_heartbeat()
    assert session_of(lock).is_silent


def test_holder_is_marked_and_keeps_its_session(lock: Plain) -> None:
    assert lock.acquire()
    assert lock.is_owned
    assert not lock.standby.has_place
    with pytest.raises(InsideRun):
        Plain().refuse_own_thread()


def test_standby_keeps_its_session_and_is_not_marked(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock.standby._turn.set()
    assert not lock.acquire()
    assert lock.standby.has_place
    assert not lock.is_owned
    assert not lock.standby._turn.is_set()
    assert not session_of(lock).is_closed
    lock.refuse_own_thread()


def test_who_is_neither_closes_its_session(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock.acquire()
    session = session_of(lock)
    lock.place = Place.NONE
    assert not lock.acquire()
    assert session.is_closed
    assert not lock.standby.has_place
    assert lock._session is None


def test_standby_that_becomes_the_holder_is_no_standby_any_more(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock.acquire()
    lock.place = Place.HOLDER
    assert lock.acquire()
    assert not lock.standby.has_place


def test_error_of_a_standby_that_asks_ends_its_session_and_place(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock.acquire()
    session = session_of(lock)
    lock.error = LockLost("gone")
    with pytest.raises(LockLost):
        lock.acquire()
    assert session.is_closed
    assert not lock.standby.has_place


def test_answer_that_comes_after_its_caller_gave_up_makes_no_standby(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock._open()
    session_of(lock).before_call = lock.release
    lock.acquire()
    assert not lock.standby.has_place


def test_lost_session_is_replaced(lock: Plain) -> None:
    lock.acquire()
    lost = session_of(lock)
    lost.is_lost = True
    assert lock.acquire()
    assert lost.is_closed
    assert session_of(lock) is not lost


@pytest.mark.parametrize(("within", "timeout"), [(60.0, 35.0), (4.0, 4.0)])
def test_answer_is_waited_for_as_long_as_the_caller_or_twice_the_liveness_allows(
    lock: Plain, within: float, timeout: float
) -> None:
    lock.acquire(within)
    assert session_of(lock).timeouts == [timeout]


def test_liveness_that_was_kept_longer_is_the_usual_one_at_the_next_try(lock: Plain) -> None:
    lock.acquire()
    lock.keep(60.0)
    assert lock.asked == ["take shop.seed", "liveness 60.0"]
    assert session_of(lock).timeouts == [35.0, 60.0]
    lock.acquire()
    assert lock.liveness == LIVENESS


def test_lock_that_switches_keeps_its_session_and_holds_nothing_known(lock: Plain) -> None:
    lock.acquire()
    session = session_of(lock)
    lock.freed_in = 3.0
    lock.switch_to("shop.other")
    assert not lock.is_owned
    lock.refuse_own_thread()
    assert lock.freed_in is None
    lock.acquire()
    assert session_of(lock) is session
    assert lock.asked == ["take shop.seed", "take shop.other"]
    lock.switch_to("shop.seed")
    lock.refuse_own_thread()


def test_standby_that_switches_is_the_standby_no_more(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock.acquire()
    before = lock.standby
    lock.switch_to("shop.other")
    before.ask(lock.take)  # a question under way in the session's thread
    assert lock.asked == ["take shop.seed"] * 2
    assert not lock.standby.has_place
    assert not lock.standby.is_due


def test_release_of_a_mark_frees_the_name_for_this_thread(lock: Plain) -> None:
    lock.acquire()
    lock.release()
    assert not lock.is_owned
    lock.refuse_own_thread()
    other = Plain()
    other.acquire()
    lock.release()  # again: the mark is another's now
    with pytest.raises(InsideRun):
        lock.refuse_own_thread()
    other.release()


@pytest.mark.parametrize(
    ("place", "stays"), [(Place.STANDBY, True), (Place.HOLDER, False), (Place.NONE, False)]
)
def test_only_a_standby_steps_back_without_leaving(lock: Plain, place: Place, stays: bool) -> None:
    lock.place = place
    lock.acquire()
    lock.release_unless_standby()
    assert lock.standby.has_place is stays
    assert (lock._session is not None) is stays


def test_standby_that_knows_its_turn_steps_back_and_leaves(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock.acquire()
    session = session_of(lock)
    lock.place = Place.HOLDER
    lock.heartbeat()
    lock.release_unless_standby()
    assert not session.is_closed  # the next look is due at once
    assert lock.is_worth_trying()
    lock.release_unless_standby()
    assert session.is_closed  # it did not get so far as to take the lock over


def test_standby_that_lost_its_place_steps_back_and_leaves(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock.acquire()
    session = session_of(lock)
    lock.place = Place.NONE
    lock.heartbeat()
    assert not session.is_closed
    lock.release_unless_standby()
    assert session.is_closed


def test_release_takes_the_turn_of_a_standby(lock: Plain) -> None:
    lock.place = Place.STANDBY
    lock.acquire()
    lock.standby._turn.set()
    lock.release()
    assert not lock.standby._turn.is_set()
    assert not lock.standby.has_place


@pytest.mark.parametrize(
    ("is_pooled", "is_owned", "seconds"),
    [(False, False, 60.0), (False, True, 5.0), (True, False, 5.0)],
)
def test_longest_pause_is_long_where_a_standby_looks(
    lock: Plain, is_pooled: bool, is_owned: bool, seconds: float
) -> None:
    lock.is_pooled = is_pooled
    if is_owned:
        lock.mark()
    assert lock.longest_pause == seconds


def test_new_lock_may_have_heirs_and_is_none(lock: Plain) -> None:
    assert not lock.is_pooled
    assert not lock.standby.has_place
    assert not lock.is_owned


def test_standby_tries_again_where_it_is_its_turn_and_asks_nobody(lock: Plain) -> None:
    lock.standby.has_place = True
    assert not lock.is_worth_trying()
    lock.standby._turn.set()
    assert lock.is_worth_trying()
    assert lock.asked == []


@pytest.mark.parametrize(
    ("is_pooled", "asked"), [(False, ["look"]), (True, ["find holder", "look"])]
)
def test_others_look_and_at_the_holder_where_nobody_else_does(
    lock: Plain, is_pooled: bool, asked: list[str]
) -> None:
    lock.is_pooled = is_pooled
    assert lock.is_worth_trying()
    assert lock.asked == asked


def test_standby_attends_its_turn_and_others_sleep(
    lock: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(locks, "time", SimpleNamespace(sleep=slept.append))
    lock.wait(3.0)
    assert slept == [3.0]
    lock.standby.has_place = True
    began = time.monotonic()
    lock.wait(0.05)
    assert time.monotonic() - began > 0.04
    lock.standby._turn.set()
    lock.wait(60.0)
    assert time.monotonic() - began < 60.0
    assert slept == [3.0]


@pytest.mark.parametrize(("age", "asked"), [(1.4, []), (1.6, ["show life"])])
def test_confirm_asks_where_the_last_answer_is_older_than_a_tenth_of_the_liveness(
    lock: Plain, age: float, asked: list[str]
) -> None:
    lock.acquire()
    lock.asked.clear()
    session = session_of(lock)
    session.answered = time.monotonic() - age
    lock.confirm()
    assert lock.asked == asked
    assert session.checks == (not asked)


def test_check_asks_the_session_alone(lock: Plain) -> None:
    lock.acquire()
    lock.check()
    assert session_of(lock).checks == 1
    assert lock.asked == ["take shop.seed"]


def test_yielding_gives_up_after_1_to_3_seconds_and_not_after_its_end(
    lock: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.acquire()
    monkeypatch.setattr("random.uniform", lambda *between: between)

    def wait() -> None:
        with lock.yielding():
            assert session_of(lock).limits == [(1.0, 3.0)]
            raise LookupError

    with pytest.raises(LookupError):
        wait()
    assert session_of(lock).limits == [(1.0, 3.0), None]


@pytest.mark.parametrize(
    ("silence", "freed_in"), [(0.0, None), (7.4, None), (7.5, 7.5), (14.0, 1.0), (15.0, None)]
)
def test_holder_that_is_late_to_ping_is_expected_to_end(
    lock: Plain, silence: float, freed_in: float | None
) -> None:
    lock.freed_in = 99.0
    lock.expect_end(silence)
    assert lock.freed_in == freed_in


@pytest.mark.parametrize(
    ("is_standby", "is_turn", "took", "interval"),
    [
        (False, False, 0.0, 5.0),
        (True, False, 0.0, 0.02),
        (True, False, 0.02, 0.2),
        (True, False, 9.0, 5.0),
        (True, True, 0.0, 5.0),
    ],
    ids=["holder", "standby", "slow server", "very slow server", "standby that is not told yet"],
)
def test_interval_of_signs_of_life(
    lock: Plain, is_standby: bool, is_turn: bool, took: float, interval: float
) -> None:
    lock.standby.has_place = is_standby
    if is_turn:
        lock.standby._turn.set()
    assert lock.interval(took) == pytest.approx(interval)


def test_interval_stays_a_third_of_the_usual_liveness_where_that_was_made_longer(
    lock: Plain,
) -> None:
    lock.acquire()
    lock.keep(8 * LIVENESS)
    assert lock.interval(0.0) == LIVENESS / 3


@pytest.mark.parametrize(("is_standby", "is_turn"), [(False, False), (True, True)])
def test_beat_shows_life_of_who_has_the_lock(lock: Plain, is_standby: bool, is_turn: bool) -> None:
    lock.standby.has_place = is_standby
    if is_turn:
        lock.standby._turn.set()
    lock.heartbeat()
    assert lock.asked == ["show life"]


@pytest.mark.parametrize(
    ("place", "stays", "is_told"),
    [(Place.STANDBY, True, False), (Place.HOLDER, True, True), (Place.NONE, False, True)],
)
def test_beat_of_a_standby_tries_the_lock_and_tells_what_changed(
    lock: Plain, place: Place, stays: bool, is_told: bool
) -> None:
    lock.standby.has_place, lock.place = True, place
    lock.heartbeat()
    assert lock.asked == ["take shop.seed"]
    assert lock.standby.has_place is stays
    assert lock.standby._turn.is_set() is is_told


def test_beat_of_a_standby_that_fails_tells_it(lock: Plain) -> None:
    lock.standby.has_place, lock.error = True, LookupError()
    with pytest.raises(LookupError):
        lock.heartbeat()
    assert lock.standby._turn.is_set()


def test_other_threads_may_wait_for_who_holds_it(lock: Plain) -> None:
    lock.acquire()
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
