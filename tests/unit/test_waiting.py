"""How long a wait pauses, how often it reports, and when it gives up."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import inf
from typing import NoReturn

import pytest
from django.db import OperationalError

from once import signals
from once.databases.lock import AdvisoryLock
from once.engine import backoff
from once.engine.backoff import Retry, Wait
from once.exceptions import DatabaseUnavailable, TimedOut


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[tuple[float, float]] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append((self.now - 1000.0, seconds))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(backoff, "monotonic", lambda: clock.now)
    return clock


class Lock(AdvisoryLock):
    """A lock that another process holds."""

    def acquire(self, within: float = inf) -> bool:
        return False

    def release(self) -> None:
        """Free nothing."""


@pytest.fixture
def reports() -> Iterator[list[tuple[float, str]]]:
    sent: list[tuple[float, str]] = []

    def receive(sender: object, name: str, reason: str, waited: float, **kwargs: object) -> None:
        assert name == "shop.seed"
        sent.append((waited, reason))

    signals.waiting.connect(receive)
    yield sent
    signals.waiting.disconnect(receive)


def new_wait(clock: Clock, deadline: float | None = None, patience: float = 10.0) -> Wait:
    return Wait(
        name="shop.seed",
        using="default",
        deadline=None if deadline is None else clock.now + deadline,
        patience=patience,
        started=clock.now,  # its default is the real clock
    )


def for_ever(call: Callable[[], None]) -> NoReturn:
    while True:
        call()


def test_pause_is_about_a_tenth_of_the_wait(clock: Clock) -> None:
    wait = new_wait(clock)
    while wait.seconds < 600:
        wait.pause("x is run by y")
    for waited, pause in clock.pauses:
        longest = min(5.0, max(0.05, waited / 10))
        assert longest / 2 <= pause <= longest
    assert clock.pauses[0][1] <= 0.05
    assert max(pause for _, pause in clock.pauses) > 4.0


def test_pause_is_longer_where_it_takes_long_to_look(clock: Clock) -> None:
    wait = new_wait(clock)
    for seconds in (0.006, 0.006, 0.06, 0.06, 1.0, 1.0, 20.0, 20.0):
        look(wait, clock, seconds)
    first, second, third, fourth = [pause for _, pause in clock.pauses[1::2]]
    assert 0.3 <= first <= 0.6
    assert 0.5 <= second <= 1.0
    assert 5.0 <= third <= 10.0
    assert 15.0 <= fourth <= 30.0


def test_one_slow_look_says_nothing_of_a_crowd(clock: Clock) -> None:
    wait = new_wait(clock)
    for seconds in (3.0, 0.001):
        look(wait, clock, seconds)
    assert all(pause < 0.4 for _, pause in clock.pauses)
    for seconds in (3.0, 3.0):
        look(wait, clock, seconds)
    wait.survive(OSError())  # which has a law of its own
    assert clock.pauses[-1][1] <= wait.seconds / 5


def look(wait: Wait, clock: Clock, seconds: float) -> None:
    with wait.asking():
        clock.now += seconds
    wait.pause("x is run by y")


def test_pause_of_who_was_refused_is_longer(clock: Clock) -> None:
    wait = new_wait(clock, patience=100.0)
    wait.survive(OSError())
    clock.now += 20
    wait.survive(OSError())
    clock.now += 60
    wait.survive(OSError())
    (_, first), (_, second), (_, third) = clock.pauses
    assert 0.25 <= first <= 0.5
    assert 2.0 <= second <= 4.5
    assert 5.0 <= third <= 10.0


def test_pause_is_shorter_where_the_end_is_near(clock: Clock) -> None:
    wait = new_wait(clock)
    wait.lock = Lock()
    clock.now += 600
    wait.lock.freed_in = 1.0
    wait.pause("x is run by y")
    wait.pause("x is run by y")
    (_, expected), (_, usual) = clock.pauses
    assert 1.05 <= expected <= 1.5
    assert usual >= 2.5


def test_pauses_are_jittered(clock: Clock) -> None:
    for _ in range(10):
        new_wait(clock).pause("x")
    assert len({pause for _, pause in clock.pauses}) > 1


def test_reports_get_rarer(clock: Clock, reports: list[tuple[float, str]]) -> None:
    wait = new_wait(clock)
    while wait.seconds < 1000:
        wait.pause("x is run by y")
    times = [waited for waited, _ in reports]
    assert times[0] == 0.0
    assert {reason for _, reason in reports} == {"x is run by y"}
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] >= 1.0
    assert all(gap <= 60 + 5 for gap in gaps)
    assert gaps[-1] > 60
    assert 10 < len(times) < 30


def test_timed_out_names_the_holder_and_the_next_step(clock: Clock) -> None:
    wait = new_wait(clock, deadline=2.0)
    with pytest.raises(TimedOut) as timed_out:
        for_ever(lambda: wait.pause("shop.seed is run by web-1 (pid 7)"))
    message = str(timed_out.value)
    assert "Gave up after 2.0 s: shop.seed is run by web-1 (pid 7)." in message
    assert "`manage.py once status`" in message
    assert clock.now == pytest.approx(1002.0)  # the last pause ends at the deadline


def test_timeout_of_nothing_does_not_pause(clock: Clock, reports: list[tuple[float, str]]) -> None:
    with pytest.raises(TimedOut):
        new_wait(clock, deadline=0.0).pause("x")
    assert clock.pauses == []
    assert reports == [(0.0, "x")]


def test_survive_raises_after_its_patience(clock: Clock) -> None:
    wait = new_wait(clock, patience=3.0)
    refused = OSError("connection refused\n  to a socket")
    with pytest.raises(DatabaseUnavailable) as unavailable:
        for_ever(lambda: wait.survive(refused))
    message = str(unavailable.value)
    assert "database 'default' cannot be used: OSError: connection refused." in message
    assert "DATABASES['default']" in message
    assert unavailable.value.__cause__ is refused
    assert 3.0 < clock.now - 1000.0 < 4.0


def test_survive_raises_at_the_deadline(clock: Clock) -> None:
    wait = new_wait(clock, deadline=2.0, patience=float("inf"))
    with pytest.raises(DatabaseUnavailable, match=r"For 2\.0 s"):
        for_ever(lambda: wait.survive(OSError()))


def test_survive_counts_anew_after_an_answer(clock: Clock) -> None:
    wait = new_wait(clock, patience=20.0)
    for _ in range(10):
        wait.survive(OSError())
        clock.now += 4.0
        wait.survive(OSError())
        wait.pause("x is run by y")
    assert wait.seconds > 40


def test_error_while_the_reason_is_found_out_is_survived(
    clock: Clock, reports: list[tuple[float, str]]
) -> None:
    errors = [OperationalError("server closed the connection")]

    def reason() -> str:
        if errors:
            raise errors.pop()
        return "x is run by y"

    answers = iter([Retry(reason), Retry(reason), "done"])
    assert new_wait(clock).until(lambda: next(answers)) == "done"
    assert len(clock.pauses) == 2
