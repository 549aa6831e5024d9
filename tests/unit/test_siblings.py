"""When a waiter looks that shares a file with the other waiters of its host."""

import os
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest

from once.databases.lock import AdvisoryLock
from once.engine import siblings as module
from once.engine.siblings import Siblings

KEY = "db.example:5432:shop:shop.seed:17"


class Lock(AdvisoryLock):
    """A lock that another process holds, in whose pauses things happen at their time."""

    def __init__(self, key: str = KEY) -> None:
        self.now = 1000.0
        self.key = key
        self.is_standby = False
        self.is_free = False
        #: What happens at each pause from now on.
        self.happens: Callable[[], object] = lambda: None

    @property
    def shared_key(self) -> str:
        return self.key

    @property
    def is_asking(self) -> bool:
        return self.is_standby

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.happens()
        return self.is_free

    def acquire(self, within: float = inf) -> bool:
        return False

    def release(self) -> None:
        """Free nothing."""


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lock:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    lock = Lock()
    monkeypatch.setattr(module, "monotonic", lambda: lock.now)
    return lock


@pytest.fixture
def new() -> Iterator[Callable[[Lock], Siblings]]:
    """Makes a waiter that has joined its siblings, as far as it can."""
    made: list[Siblings] = []

    def join(lock: Lock) -> Siblings:
        made.append(Siblings())
        made[-1].join_or_leave(lock)
        return made[-1]

    yield join
    for each in made:
        each.leave()


New = Callable[[Lock], Siblings]


@pytest.fixture
def marks(tmp_path: Path) -> Callable[[], None]:
    """Marks the file as a sibling does that is about to look."""
    count = 0

    def mark() -> None:
        nonlocal count
        count += 1
        [file] = tmp_path.glob("once-*/*")
        os.utime(file, ns=(count, count))

    return mark


def test_waiter_alone_looks_after_its_pause_and_marks_that(lock: Lock, new: New) -> None:
    own, other = new(lock), new(lock)
    own.wait(lock, 3.0, inf)
    assert lock.now == pytest.approx(1003.0, abs=0.1)
    began = lock.now
    other.wait(lock, 3.0, inf)  # the mark puts it off, from when it sees that
    assert lock.now == pytest.approx(began + 3.0, abs=0.1)
    assert own.told_at is other.told_at is None


def test_waiter_does_not_look_while_its_siblings_do(
    lock: Lock, new: New, marks: Callable[[], None]
) -> None:
    waiter = new(lock)
    lock.happens = marks
    waiter.wait(lock, 1.0, inf)
    # But in the end it does: what its siblings see may be another server.
    assert 1010.0 <= lock.now <= 1020.1


def test_waiter_looks_once_the_marks_end(lock: Lock, new: New, marks: Callable[[], None]) -> None:
    waiter = new(lock)
    lock.happens = lambda: marks() if lock.now < 1005.0 else None
    waiter.wait(lock, 1.0, inf)
    assert 1005.9 <= lock.now <= 1006.1


def test_pause_beside_siblings_has_a_least(lock: Lock, new: New, marks: Callable[[], None]) -> None:
    waiter = new(lock)
    lock.happens = lambda: marks() if lock.now < 1000.1 else None
    waiter.wait(lock, 0.05, inf)
    assert lock.now > 1000.2


def test_deadline_ends_a_pause_beside_siblings(
    lock: Lock, new: New, marks: Callable[[], None]
) -> None:
    waiter = new(lock)
    lock.happens = marks
    waiter.wait(lock, 1.0, 2.0)
    assert lock.now == pytest.approx(1002.0)


def test_standby_marks_as_long_as_its_session_asks(lock: Lock, new: New) -> None:
    standby, other = new(lock), new(lock)
    lock.is_standby = True
    standby.wait(lock, 0.3, inf)
    lock.is_standby = False
    lock.happens = lambda: standby._mark(standby._file or 0)  # as another process at that time
    began = lock.now
    other.wait(lock, 1.0, inf)
    assert lock.now > began + 9.0


def test_standby_stops_to_pause_when_it_has_the_lock(lock: Lock, new: New) -> None:
    standby = new(lock)
    lock.is_standby = lock.is_free = True
    standby.wait(lock, 60.0, inf)
    assert lock.now < 1000.1


def test_siblings_are_told_at_once_and_spread_their_looks(
    lock: Lock, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    waiters = [new(lock) for _ in range(50)]
    lock.happens = lambda: Siblings().tell(lock)
    for waiter in waiters:
        began = lock.now
        waiter.wait(lock, 60.0, inf)
        assert lock.now - began < 0.1
        assert waiter.told_at
    assert all(0 <= rush <= 0.2 for rush in slept)
    assert max(slept) > 0.05
    waiters[0].wait(lock, 0.1, inf)  # nothing is told any more
    assert waiters[0].told_at is None


def test_who_joins_after_the_news_is_not_told_of_them(lock: Lock, new: New) -> None:
    early = new(lock)
    Siblings().tell(lock)
    late = new(lock)
    late.wait(lock, 1.0, inf)
    assert late.told_at is None
    early.wait(lock, 1.0, inf)
    assert early.told_at


def test_other_locks_are_another_wait(lock: Lock, new: New) -> None:
    waiter = new(lock)
    Siblings().tell(Lock(f"{KEY}8"))
    waiter.wait(lock, 1.0, inf)
    assert waiter.told_at is None


def test_lock_without_a_key_is_waited_for_alone(lock: Lock, new: New, tmp_path: Path) -> None:
    lock.key = ""
    waiter = new(lock)
    assert not waiter.are_joined
    waiter.wait(lock, 3.0, inf)
    waiter.tell(lock)
    assert lock.now == 1003.0
    assert not [*tmp_path.iterdir()]


def _missing(tmp_path: Path) -> None:
    os.environ["TMPDIR"] = str(tmp_path / "missing")


def _others(tmp_path: Path) -> None:
    (tmp_path / f"once-{os.geteuid()}").mkdir(mode=0o755)


def _linked(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"once-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")


def _file(tmp_path: Path) -> None:
    (tmp_path / f"once-{os.geteuid()}").touch(mode=0o700)


@pytest.mark.parametrize("trouble", [_missing, _others, _linked, _file])
def test_without_a_directory_of_its_own_a_waiter_is_alone(
    lock: Lock, new: New, tmp_path: Path, trouble: Callable[[Path], None]
) -> None:
    trouble(tmp_path)
    waiter = new(lock)
    assert not waiter.are_joined
    waiter.wait(lock, 3.0, inf)
    waiter.tell(lock)
    assert lock.now == 1003.0
    assert waiter.told_at is None


def test_directory_of_another_user_is_left_alone(
    lock: Lock, new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    (tmp_path / f"once-{user + 1}").mkdir(mode=0o700)
    assert not new(lock).are_joined


def test_file_that_cannot_be_asked_any_more_is_left(
    lock: Lock, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiter = new(lock)

    def fail(file: int) -> os.stat_result:
        raise OSError("Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        waiter.wait(lock, 3.0, inf)
    assert not waiter.are_joined
    assert 1003.0 <= lock.now < 1003.1
