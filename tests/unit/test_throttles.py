"""What throttles refuse and are called, and when replicas are behind, by a clock of the test."""

import re
from typing import Any

import pytest

from once import Run, throttles
from once.databases import replicas
from once.databases.replicas import Replicas
from once.exceptions import RoutineError, ThrottleError


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        *(
            (name, {"seconds": seconds}, f"({seconds=}): pass a number of seconds from 0.1")
            for name in ("replica_lag", "lock_waits")
            for seconds in (0, -1, None, "2", True, float("nan"), 1e6)
        ),
        ("replica_lag", {"replica": ""}, "(replica=''): pass an alias"),
        ("replica_lag", {"replica": 1}, "(replica=1): pass an alias"),
        ("lock_waits", {"sessions": 0}, "(sessions=0): pass an integer from 1."),
        ("lock_waits", {"sessions": 1.5}, "(sessions=1.5): pass an integer from 1."),
        ("wal_archiving", {"files": True}, "(files=True): pass an integer from 1."),
    ],
)
def test_invalid_arguments_are_refused_at_once(
    name: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RoutineError, match=re.escape(f"{name}{problem}")):
        getattr(throttles, name)(**arguments)


def test_throttles_have_names_for_people() -> None:
    made: list[Any] = [
        throttles.replica_lag(),
        throttles.replica_lag(0.5, replica="reports"),
        throttles.lock_waits(),
        throttles.wal_archiving(),
    ]
    assert [each.__name__ for each in made] == [
        "replica_lag(seconds=2)",
        "replica_lag(seconds=0.5, replica='reports')",
        "lock_waits(seconds=1, sessions=1)",
        "wal_archiving(files=10)",
    ]


class Server:
    """A primary that writes ten bytes a second, and what its replicas have of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now = 0.0
        self.replicas = Replicas(using="default", seconds=seconds)
        monkeypatch.setattr(replicas, "monotonic", lambda: self.now)

    def are_behind(self, now: float, replayed: int) -> bool:
        self.now = now
        return self.replicas._have_to_replay(int(now * 10), replayed)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch, seconds=2)


def test_what_was_there_at_first_is_to_be_replayed_first(server: Server) -> None:
    assert server.are_behind(100, 999)
    assert server.are_behind(101, 999)
    assert not server.are_behind(101.5, 1012)


def test_replica_may_be_behind_by_the_seconds(server: Server) -> None:
    assert not server.are_behind(100, 1000)
    for now in range(102, 110):
        assert not server.are_behind(now, now * 10 - 20)
        assert server.are_behind(now, now * 10 - 21)


def test_replica_that_stands_still_is_behind_for_as_long(server: Server) -> None:
    assert not server.are_behind(100, 1000)
    assert [server.are_behind(now, 1000) for now in (101, 102, 103, 110)] == [
        *(False, False),
        *(True, True),
    ]


def test_of_a_long_batch_the_part_counts_that_was_written_by_then(server: Server) -> None:
    assert not server.are_behind(100, 1000)
    assert server.are_behind(160, 1579)
    assert not server.are_behind(160, 1590)


def test_primary_that_is_three_times_as_fast_stops_before_the_lag_is_there(server: Server) -> None:
    def are_behind(now: float) -> bool:
        server.now = now
        return server.replicas._have_to_replay(int(now * 30), int(now * 10))

    assert [are_behind(now) for now in (0, 0.5, 0.9, 1.1, 1.5)] == [False] * 3 + [True] * 2


def test_places_of_another_server_are_forgotten(server: Server) -> None:
    assert not server.are_behind(100, 1000)
    server.now = 110
    assert not server.replicas._have_to_replay(500, 500)
    assert len(server.replicas._seen) == 1


def test_few_places_are_kept(server: Server) -> None:
    for tenth in range(1000, 2000):
        server.are_behind(tenth / 10, tenth)
    assert len(server.replicas._seen) <= 22


class Gone:
    """A server whose replicas come and go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.is_there = True
        self.replicas = Replicas(using="default", seconds=2)
        monkeypatch.setattr(replicas, "monotonic", lambda: self.now)
        monkeypatch.setattr(Replicas, "_ask", lambda _: self.ask())

    def ask(self) -> bool:
        if not self.is_there:
            raise replicas._Gone("No replica is connected.")
        return False


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Gone:
    return Gone(monkeypatch)


def test_replica_that_never_was_there_is_an_error(gone: Gone) -> None:
    gone.is_there = False
    with pytest.raises(ThrottleError, match=r"^No replica is connected\. Restore it, or remove"):
        gone.replicas.are_behind()


def test_replica_that_is_gone_is_waited_for_and_after_ten_minutes_an_error(gone: Gone) -> None:
    assert not gone.replicas.are_behind()
    gone.is_there = False
    for gone.now in (1.0, 600.9):
        assert gone.replicas.are_behind()
    gone.is_there = True
    assert not gone.replicas.are_behind()
    gone.is_there = False
    gone.now = 1000
    assert gone.replicas.are_behind()
    gone.now = 1600
    with pytest.raises(ThrottleError, match=r"connected\. This has lasted for 600 s\. Restore it"):
        gone.replicas.are_behind()


def test_each_attempt_has_replicas_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Replicas] = []

    def look(self: Replicas) -> bool:
        seen.append(self)
        return False

    monkeypatch.setattr(Replicas, "are_behind", look)
    throttle = throttles.replica_lag()
    runs = [
        Run(using="default", attempt=attempt, key=key, check=lambda: None)
        for key, attempt in (("a", 1), ("a", 1), ("a", 2), ("b", 2))
    ]
    assert [throttle(run) for run in runs] == [0, 0, 0, 0]
    assert seen[0] is seen[1]
    assert len({id(each) for each in seen}) == 3
