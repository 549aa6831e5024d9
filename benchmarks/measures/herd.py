"""Herd: many processes start at once on a server that has not a connection for each.

Their one routine takes 3 seconds; it is begun by whoever the contender lets.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.contenders import TITLES
from benchmarks.figures import FLOOR, Figure, Row
from benchmarks.fleet import Scene, own_server, scene
from benchmarks.stage import Stage
from tests.faults.support import Server
from tests.servers import PgBouncer
from tests.waiting import wait_until

__all__ = ["figures"]

SIZES = (60, 200)
CONNECTIONS = 20
#: What a pooler before them takes of these.
POOL = 15
SECONDS = 3.0
#: How long to wait for the last process, after the end of the routine.
LIMIT = 60.0

_TAKING_PART = [name for name in TITLES if name not in (FLOOR, "pglock_read")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    ready: int
    runs: int
    #: Seconds from the end of the last body to the last process that is ready.
    last: float


def figures(stage: Stage) -> Iterator[Figure]:
    """How many processes come through, how often the body ran, and when the last was ready."""
    ways = [(size, False) for size in SIZES] + [(size, True) for size in SIZES]
    with own_server(CONNECTIONS) as server:
        for size, is_pooled in ways:
            if is_pooled and not _has_pooler():
                print("pgbouncer is missing: herds through it are left out", file=sys.stderr)
                return
            found: dict[str, list[_Result]] = {name: [] for name in _TAKING_PART}
            for _ in range(stage.times(3)):
                for name in _TAKING_PART:
                    found[name].append(_herd(server, name, size, is_pooled=is_pooled))
            yield from _figures(size, found, is_pooled=is_pooled)


def _figures(size: int, found: dict[str, list[_Result]], *, is_pooled: bool) -> Iterator[Figure]:
    way = f"PgBouncer with a pool of {POOL}" if is_pooled else f"{CONNECTIONS} connections"
    title = f"{size} processes, {way}, a routine of {SECONDS:.0f} s"
    ready = Row(measure="herd", title=f"{title}: succeed", unit="processes", relation="-")
    runs = Row(measure="herd", title=f"{title}: runs of the body", unit="runs", relation="-")
    last = Row(measure="herd", title=f"{title}: last ready after its end", relation="-")
    for name, results in found.items():
        for row, values in (
            (ready, tuple(float(result.ready) for result in results)),
            (runs, tuple(float(result.runs) for result in results)),
            (last, tuple(result.last for result in results if result.ready)),
        ):
            yield Figure(row=row, contender=name, values=values)


def _has_pooler() -> bool:
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is not None


@contextmanager
def _pooled(here: Scene) -> Iterator[str]:
    pooler = PgBouncer(here.directory / "pgbouncer", here.stage.url, POOL)
    try:
        yield pooler.url(urlsplit(here.stage.url).path.strip("/"))
    finally:
        here.kill()
        pooler.stop()


def _herd(server: Server, name: str, size: int, *, is_pooled: bool) -> _Result:
    with scene(name, server) as here, ExitStack() as stack:
        url = stack.enter_context(_pooled(here)) if is_pooled else ""
        fleet = here.fleet(size, url=url)
        fleet.start()
        wait_until(lambda: here.calls() or not fleet.is_running(), what="a body to begin")
        time.sleep(SECONDS)
        here.end_bodies()
        ready = [answer.at for answer in fleet.wait(LIMIT) if not answer.error]
        calls = here.calls()
        end = max((call.ended for call in calls if call.ended), default=0.0)
        return _Result(ready=len(ready), runs=len(calls), last=max(ready, default=end) - end)
