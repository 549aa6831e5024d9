"""Locks: what 50 routines cost that are held at once for 10 seconds, each by its own process.

The bodies hardly do anything meanwhile. All sessions pass a relay, which counts.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from benchmarks.contenders import TITLES
from benchmarks.figures import Figure, Row
from benchmarks.fleet import Usage, own_server, scene
from benchmarks.stage import Stage
from benchmarks.wire import Relay
from tests.faults.support import Server
from tests.waiting import wait_until

__all__ = ["figures"]

COUNT = 50
SECONDS = 10.0
#: Seconds between two statements of a body, so rare that what is seen are the locks.
BEAT = 5.0

_TAKING_PART = [name for name in TITLES if name in ("floor", "pglock", "once")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    #: Seconds of CPU time.
    clients: float
    server: float
    #: At a time.
    connections: int
    #: Round trips in a second, while all are held.
    trips: float


def figures(stage: Stage) -> Iterator[Figure]:
    """Connections, CPU time of both sides for start, holding and end, and round trips."""
    found: dict[str, list[_Result]] = {name: [] for name in _TAKING_PART}
    with own_server(2 * COUNT + 20) as server:
        for _ in range(stage.times(3)):
            for name in _TAKING_PART:
                found[name].append(_hold(server, name))
    held = f"{COUNT} routines of {SECONDS:.0f} s held at once"
    rows = {
        "connections": Row(
            measure="locks", title=f"{held}: connections", unit="connections", relation="-"
        ),
        "trips": Row(
            measure="locks", title=f"{held}: round trips in a second", unit="", relation="-"
        ),
        "clients": Row(
            measure="locks", title=f"{held}: CPU time of all clients", relation="difference"
        ),
        "server": Row(
            measure="locks", title=f"{held}: CPU time of the server", relation="difference"
        ),
    }
    for field, row in rows.items():
        for name, results in found.items():
            values = tuple(float(getattr(result, field)) for result in results)
            yield Figure(row=row, contender=name, values=values)


def _hold(server: Server, name: str) -> _Result:
    with scene(name, server) as here, closing(Relay(here.stage.url)) as relay:
        usage = Usage(server.url)
        settings = {"BENCHMARK_BEAT": str(BEAT)}
        fleet = here.fleet(COUNT, url=relay.url, apart=True, settings=settings)
        fleet.wait_for_ready()
        before = usage.seconds
        fleet.start()
        wait_until(lambda: len(here.calls()) == COUNT, what="all bodies to begin")
        answered = relay.counts
        time.sleep(SECONDS / 2)
        trips = (relay.counts - answered).trips / (SECONDS / 2)
        [(connections,)] = here.rows(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        time.sleep(SECONDS / 2)
        here.end_bodies()
        answers = fleet.wait(60)
        if problems := [answer.error for answer in answers if answer.error]:
            raise RuntimeError(problems[0])
        return _Result(
            clients=sum(answer.cpu for answer in answers),
            server=usage.seconds - before,
            connections=connections,
            trips=trips,
        )
