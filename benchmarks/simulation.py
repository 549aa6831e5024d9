"""Waiters without processes: each look is a real connection, each pause that of a polling law.

    python -m benchmarks.simulation WAITERS SECONDS CONNECTIONS [LAW ...]

prints a line for each law: what these waiters cost a server with that many connections while a
routine runs for that long, and when they know of its end. Each waiter is on a host of its own: the
waiters of one host look as one of them would.
"""

import asyncio
import logging
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import psycopg

from benchmarks.fleet import Usage, own_server

__all__ = ["Crowd", "Outcome", "once", "simulate"]

#: As once looks: by a try of the lock's key and of the standby's, shared, in one statement.
_KEY = 4242
_LOOK = f"SELECT pg_try_advisory_xact_lock_shared({_KEY}), pg_try_advisory_xact_lock_shared(4243)"
#: What a bystander asks, an application on the same server.
_QUERY = "SELECT count(*) FROM generate_series(1, 2000)"


class Law(Protocol):
    """How long one waiter pauses after a look that took so many seconds."""

    def answered(self, look: float) -> float:
        """The lock is taken."""

    def refused(self, look: float) -> float:
        """There was no connection to be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who waits."""

    size: int
    #: Within which they arrive, evenly.
    arrival: float
    #: How long the routine runs that they wait for.
    seconds: float
    #: How long to wait for the last of them after that.
    limit: float = 60.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What the server had to bear, and when the waiters knew."""

    looks: int = 0
    refusals: int = 0
    #: CPU seconds of the server in a second.
    processors: float = 0.0
    #: Seconds that a bystander's query took, and how many of its connections were refused.
    queries: list[float] = field(default_factory=list)
    connects: list[bool] = field(default_factory=list)
    #: Seconds from the end to when each knew; who took longer than the limit is not among them.
    delays: list[float] = field(default_factory=list)

    @property
    def share_refused(self) -> float:
        """Of the bystander's connections."""
        return self.connects.count(False) / max(1, len(self.connects))


def once() -> Law:
    """The law of once itself."""
    from once.databases.lock import AdvisoryLock, NoLock
    from once.engine.backoff import Wait
    from once.engine.siblings import Siblings
    from once.exceptions import NoConnection

    class OfServer(NoLock):
        longest_pause = 60.0

    class Noting(Siblings):
        """Takes note of a pause instead of sleeping."""

        are_joined = True
        pause = 0.0

        def wait(
            self,
            lock: AdvisoryLock,
            pause: float,
            most: float,
            meanwhile: Callable[[], object] = lambda: None,
        ) -> None:
            self.pause = pause

    class Waiting:
        def __init__(self) -> None:
            self._siblings = Noting()
            self._wait = Wait(
                name="",
                using="default",
                deadline=None,
                patience=float("inf"),
                lock=OfServer(),
                siblings=self._siblings,
            )

        def answered(self, look: float) -> float:
            self._look(look)
            self._wait.pause("held")
            return self._siblings.pause

        def refused(self, look: float) -> float:
            self._look(look)
            self._wait.survive(NoConnection("refused"))
            return self._siblings.pause

        def _look(self, seconds: float) -> None:
            self._wait._looks = (seconds, seconds)  # as if that had been measured

    return Waiting()


class Tenth:
    """A tenth of the wait so far up to 5 s; at least 10 looks, up to a second; as 0.1.0 did."""

    most = 5.0

    def __init__(self) -> None:
        self._started = monotonic()

    @property
    def _seconds(self) -> float:
        return monotonic() - self._started

    def answered(self, look: float) -> float:
        law = max(min(self.most, max(0.05, self._seconds / 10)), min(1.0, 10 * look))
        return law * random.uniform(0.5, 1.0)  # noqa: S311

    def refused(self, look: float) -> float:
        return self.answered(look)


class Half(Tenth):
    """The same without an end, 100 looks up to a second; half of the wait where refused."""

    def answered(self, look: float) -> float:
        law = max(0.05, self._seconds / 10, min(1.0, 100 * look))
        return law * random.uniform(0.5, 1.0)  # noqa: S311

    def refused(self, look: float) -> float:
        return max(1.0, self._seconds / 2) * random.uniform(0.5, 1.0)  # noqa: S311


LAWS: dict[str, Callable[[], Law]] = {"once": once, "tenth": Tenth, "half": Half}


def simulate(url: str, crowd: Crowd, law: Callable[[], Law]) -> Outcome:
    """Have a crowd wait on a server for the end of a routine."""
    logging.disable(logging.CRITICAL)  # of connections that are cut, and of waits
    try:
        return asyncio.run(_simulate(url, crowd, law))
    finally:
        logging.disable(logging.NOTSET)


async def _simulate(url: str, crowd: Crowd, law: Callable[[], Law]) -> Outcome:
    usage = Usage(url)
    outcome = Outcome()
    holder = await psycopg.AsyncConnection.connect(url, autocommit=True)
    await holder.execute(f"SELECT pg_advisory_lock({_KEY})")
    before = usage.seconds
    bystander = asyncio.create_task(_use(url, outcome))
    waiters = [asyncio.create_task(_wait(url, crowd, law, outcome)) for _ in range(crowd.size)]
    await asyncio.sleep(crowd.seconds)
    seen = (outcome.looks, outcome.refusals)
    outcome.processors = (usage.seconds - before) / crowd.seconds
    bystander.cancel()
    await holder.close()
    ended = monotonic()
    done, pending = await asyncio.wait(waiters, timeout=crowd.limit)
    for task in pending:
        task.cancel()
    await asyncio.gather(bystander, *pending, return_exceptions=True)
    outcome.looks, outcome.refusals = seen
    outcome.delays = sorted(task.result() - ended for task in done)
    return outcome


async def _wait(url: str, crowd: Crowd, law: Callable[[], Law], outcome: Outcome) -> float:
    """Look until the lock is free; the time at which it was seen to be."""
    await asyncio.sleep(random.uniform(0, crowd.arrival))  # noqa: S311
    mine = law()
    while True:
        began = monotonic()
        outcome.looks += 1
        try:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
                [is_free, _] = await (await session.execute(_LOOK)).fetchone() or (False, False)
        except psycopg.OperationalError:
            outcome.refusals += 1
            pause = mine.refused(monotonic() - began)
        else:
            if is_free:
                return monotonic()
            pause = mine.answered(monotonic() - began)
        await asyncio.sleep(pause)


async def _use(url: str, outcome: Outcome) -> None:
    """Use the server as an application does: query by query, with a new connection now and then."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        while True:
            began = monotonic()
            await session.execute(_QUERY)
            outcome.queries.append(monotonic() - began)
            try:
                await (await psycopg.AsyncConnection.connect(url)).close()
            except psycopg.OperationalError:
                outcome.connects.append(False)
            else:
                outcome.connects.append(True)
            await asyncio.sleep(0.1)


def _line(name: str, crowd: Crowd, outcome: Outcome) -> str:
    looks, refusals = outcome.looks / crowd.seconds, outcome.refusals / max(1, outcome.looks)
    slow = statistics.quantiles(outcome.queries, n=20)[-1]
    return (
        f"{name}: {looks:.0f} looks/s, {refusals:.0%} refused, {outcome.processors:.2f} processors "
        f"of the server; bystander: query {statistics.median(outcome.queries):.3f} s, 95 % "
        f"{slow:.3f} s, {outcome.share_refused:.0%} refused; {len(outcome.delays)} of {crowd.size} "
        f"know within {crowd.limit:.0f} s, median {statistics.median(outcome.delays):.2f} s, last "
        f"{outcome.delays[-1]:.2f} s"
    )


def main(arguments: Iterable[str]) -> None:
    """Print a line for each law."""
    size, seconds, connections, *names = arguments
    crowd = Crowd(size=int(size), arrival=min(30.0, int(size) / 300), seconds=float(seconds))
    with own_server(int(connections)) as server:
        os.environ.update(DATABASE_URL=server.url)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.project.settings")
        for name in names or LAWS:
            print(_line(name, crowd, simulate(server.url, crowd, LAWS[name])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
