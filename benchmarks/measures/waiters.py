"""Waiters: what one look costs, and what a crowd of waiters costs a server.

A look is how a process that waits asks whether the routine's lock is free. The waiters of one host
are real processes, and take turns. The looks of a crowd of hosts are real, from one program
(:mod:`benchmarks.simulation`): the machine bears no thousand processes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from time import process_time

from django.db import connection

from benchmarks.figures import FLOOR, Figure, Row, Unit
from benchmarks.fleet import Usage, own_server, scene
from benchmarks.project.work import names, truncate
from benchmarks.simulation import Crowd, once, simulate
from benchmarks.stage import Stage
from once.databases import database
from once.routines.base import Routine
from once.status import readiness
from tests.waiting import wait_until

__all__ = ["figures"]

#: Waiters, connections of the server, and seconds that the routine runs.
CROWDS = ((200, 20, 10.0), (1_000, 100, 30.0), (10_000, 100, 120.0))
#: Waiters of one host, seconds of their routine, and seconds in which they come.
HOSTS = (8, 80)
SECONDS = 6.0
ARRIVAL = 1.5
LOOKS = 300


def figures(stage: Stage) -> Iterator[Figure]:
    """CPU time of a look, beside a bare connection; then hosts, and crowds of them, by size."""
    yield from _looks(stage)
    for size in HOSTS:
        yield from _host(stage, size)
    for size, connections, seconds in CROWDS[: 1 if stage.rounds == 1 else None]:
        with own_server(connections) as server:
            yield from _crowd(server.url, size, connections, seconds)


def _looks(stage: Stage) -> Iterator[Figure]:
    truncate()
    routine = Routine(function=truncate, name=names(1)[0])  # which nobody runs
    here = database("default")
    usage = Usage(stage.url)
    with here.session(), ExitStack() as stack:
        holder, standby, waiter = (
            stack.enter_context(here.lock(routine.name, 60.0)) for _ in range(3)
        )
        # Each learns by its try what it is, and the last one what it needs for a look.
        if [holder.acquire(), standby.acquire(), waiter.acquire()] != [True, False, False]:
            raise RuntimeError("The lock of a routine that nobody runs was not to be had.")
        cases: dict[str, Callable[[], object]] = {
            FLOOR: connection.ensure_connection,
            "who waits for a lock": waiter.is_worth_trying,
            "a readiness probe, or `once wait`": partial(readiness.is_done, [routine], ["default"]),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        for _ in range(stage.times(5)):
            for name, look in cases.items():
                found[name].append(_cost(look, usage))
    floor = found.pop(FLOOR)
    for looker, costs in found.items():
        for side, title in enumerate(("its own", "the server's")):
            row = Row(measure="waiters", title=f"one look of {looker}: {title} CPU time")
            for name, each in ((FLOOR, floor), ("once", costs)):
                yield Figure(row=row, contender=name, values=tuple(cost[side] for cost in each))


def _cost(look: Callable[[], object], usage: Usage) -> tuple[float, float]:
    """CPU seconds of this process and of the server for one look on a connection of its own."""
    connection.close()
    time.sleep(0.2)  # sessions that were closed come to their end
    own, server = process_time(), usage.seconds
    for _ in range(LOOKS):
        look()
        connection.close()
    own = process_time() - own
    time.sleep(0.2)
    return own / LOOKS, (usage.seconds - server) / LOOKS


def _host(stage: Stage, size: int) -> Iterator[Figure]:
    processors, delays = [], []
    with own_server(size + 20) as server:
        for _ in range(stage.times(3)):
            with scene("once", server) as here:
                usage = Usage(server.url)
                fleet = here.fleet(size)
                fleet.start()
                wait_until(here.calls, what="a body to begin")
                time.sleep(ARRIVAL)
                before = usage.seconds
                time.sleep(SECONDS - ARRIVAL)
                processors.append((usage.seconds - before) / (SECONDS - ARRIVAL))
                here.end_bodies()
                ready = [answer.at for answer in fleet.wait(60) if not answer.error]
                [call] = here.calls()
                delays.append(max(ready) - (call.ended or 0.0))
    title = f"{size} waiters of one host, a routine of {SECONDS:.0f} s"
    cost = Row(measure="waiters", title=f"{title}: processors of the server", unit="", relation="-")
    last = Row(measure="waiters", title=f"{title}: the last is ready after", relation="-")
    yield Figure(row=cost, contender="once", values=tuple(processors))
    yield Figure(row=last, contender="once", values=tuple(delays))


def _crowd(url: str, size: int, connections: int, seconds: float) -> Iterator[Figure]:
    crowd = Crowd(size=size, arrival=min(30.0, size / 300), seconds=seconds)
    outcome = simulate(url, crowd, once)
    title = f"{size:,} waiters, {connections} connections, a routine of {seconds:.0f} s"

    def figure(what: str, unit: Unit, values: Sequence[float], note: str = "") -> Figure:
        row = Row(measure="waiters", title=f"{title}: {what}", unit=unit, relation="-")
        return Figure(row=row, contender="once", values=tuple(values), note=note)

    refused = f"{outcome.refusals / outcome.looks:.0%} refused"
    yield figure("looks in a second", "", [outcome.looks / seconds], refused)
    yield figure("processors of the server", "", [outcome.processors])
    refused = f"{outcome.share_refused:.0%} of its connections refused"
    yield figure("query of a bystander", "s", outcome.queries, refused)
    unaware = size - len(outcome.delays)
    note = f"but {unaware} took longer than {crowd.limit:.0f} s" if unaware else ""
    yield figure("half of them know after", "s", [median(outcome.delays)], note)
    yield figure("the last knows after", "s", outcome.delays[-1:], note)
