"""Throttled: rows changed in batches beside a slow replica, with ``replica_lag`` and without.

The replica replays for a twentieth of the time. Its lag is measured from outside: how long ago the
primary was where the replica is now.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import quantiles
from threading import Event, Thread

import psycopg

from benchmarks.figures import Figure, Row, Unit
from benchmarks.project.throttled import BOUND
from benchmarks.stage import Stage, on_server
from tests.faults.pair import Pair
from tests.waiting import wait_until

__all__ = ["figures"]

ROWS = 100_000
_FILL = (
    "INSERT INTO project_item (counter, text) SELECT 0, repeat('x', 100) "
    f"FROM generate_series(1, {ROWS})"
)
_STARTUP = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"
_END = "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn"
_REPLAYED = "SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn"


@dataclass(slots=True)
class _Seen:
    """What was seen beside a run."""

    lags: list[float] = field(default_factory=list)
    queries: list[float] = field(default_factory=list)


def figures(stage: Stage) -> Iterator[Figure]:
    """Lag, speed, and a query beside it; each without a throttle, and with one."""
    for way in ("no throttle", "throttled"):
        pair = Pair()
        try:
            with on_server(pair.url, None) as place:
                yield from _figures(way, *_measure(way, pair, place))
        finally:
            pair.end()


def _figures(way: str, seconds: float, seen: _Seen) -> Iterator[Figure]:
    title = f"{ROWS:,} rows beside a slow replica, "
    title += f"replica_lag(seconds={BOUND:g})" if way == "throttled" else way
    found: list[tuple[str, Unit, float]] = [
        ("greatest lag", "s", max(seen.lags)),
        ("rows in a second", "", ROWS / seconds),
        ("query of a bystander, p99", "s", quantiles(seen.queries, n=100)[-1]),
    ]
    for what, unit, value in found:
        row = Row(measure="throttled", title=f"{title}: {what}", unit=unit, relation="-")
        yield Figure(row=row, contender="once", values=(value,))


def _measure(way: str, pair: Pair, place: Stage) -> tuple[float, _Seen]:
    """Return the seconds that the run took, and what was seen until the replica was as far."""
    seen, is_over = _Seen(), Event()
    with psycopg.connect(place.url, autocommit=True) as session:
        session.execute(_FILL)
        session.execute("VACUUM ANALYZE project_item")
    wait_until(lambda: pair.ask(pair.url, _END) <= pair.ask(pair.standby_url, _REPLAYED))
    [(replayer,)] = pair.ask(pair.standby_url, _STARTUP)
    with (
        _beside(lambda: _slow(replayer), is_over),
        _beside(_watched(pair, seen), is_over),
        _beside(_bystander(place, seen), is_over),
    ):
        began = time.monotonic()
        place.run(sys.executable, "-m", "benchmarks.project.throttled", way, BENCHMARK_APPS="once")
        seconds = time.monotonic() - began
        # Because the lag of what was written last is only known once that is replayed.
        wait_until(lambda: pair.ask(pair.url, _END) <= pair.ask(pair.standby_url, _REPLAYED))
        is_over.set()
    return seconds, seen


@contextmanager
def _beside(step: Callable[[], None], is_over: Event) -> Iterator[None]:
    """Repeat something in a thread until all is over."""

    def repeat() -> None:
        while not is_over.is_set():
            step()

    thread = Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _slow(replayer: int) -> None:
    os.kill(replayer, signal.SIGSTOP)
    time.sleep(0.19)
    os.kill(replayer, signal.SIGCONT)
    time.sleep(0.01)


def _watched(pair: Pair, seen: _Seen) -> Callable[[], None]:
    primary, standby = (
        psycopg.connect(url, autocommit=True) for url in (pair.url, pair.standby_url)
    )
    ends: list[tuple[float, int]] = []

    def watch() -> None:
        ends.append((time.monotonic(), primary.execute(_END).fetchone()[0]))  # type: ignore[index]
        replayed = standby.execute(_REPLAYED).fetchone()[0]  # type: ignore[index]
        while len(ends) > 1 and ends[1][1] <= replayed:
            ends.pop(0)
        is_there = ends[-1][1] <= replayed
        seen.lags.append(0.0 if is_there else time.monotonic() - ends[0][0])
        time.sleep(0.05)

    return watch


def _bystander(place: Stage, seen: _Seen) -> Callable[[], None]:
    session = psycopg.connect(place.url, autocommit=True)

    def ask() -> None:
        began = time.monotonic()
        session.execute("SELECT counter FROM project_item WHERE id = 4711")
        seen.queries.append(time.monotonic() - began)
        time.sleep(0.01)

    return ask
