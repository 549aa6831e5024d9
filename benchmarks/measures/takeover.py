"""Takeover: how long after the holder's death the next body begins, with others that waited long.

One process begins a routine that works in its session without end. Five more start then and wait,
until it comes to harm. A lost node is a relay that swallows all packets from then on: its kernel
acknowledges what the server sends, as no cable would, which leaves the server nothing to notice.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from benchmarks.contenders import TITLES
from benchmarks.figures import FLOOR, Figure, Row
from benchmarks.fleet import Scene, own_server, scene
from benchmarks.project import ledger, work
from benchmarks.stage import Stage
from benchmarks.wire import Relay
from tests.faults.support import Server
from tests.waiting import wait_until

__all__ = ["figures"]

WAITERS = 5
#: How long they wait before the holder comes to harm.
PATIENCE = 20.0
#: Seconds of silence after which a lock is lost (ONCE_LIVENESS_TIMEOUT).
LIVENESS = 2
#: How long bodies are watched once another has begun, the frozen one thawed.
AFTERWARDS = 5.0

#: What the server calls the sessions of the holder that have no name of their own.
_NAME = "holder"
_TAKING_PART = [name for name in TITLES if name not in (FLOOR, "pglock_read")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    """The process that comes to harm, and what that is done with."""

    pid: int
    relay: Relay
    scene: Scene
    server: Server

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def cut_off(self) -> None:
        self.relay.stop_heartbeat()

    def terminate(self) -> None:
        """End the session of its lock; where it has none that tells its process, its only one."""
        terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name"
        if not self.scene.rows(f"{terminate} LIKE '%(pid {self.pid})'"):
            self.scene.rows(f"{terminate} = '{_NAME}'")

    def crash_server(self) -> None:
        self.server.crash()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Harm:
    title: str
    do: Callable[[_Holder], None]
    #: What is done once another body has begun, or is taken to begin never.
    afterwards: Callable[[_Holder], None] | None = None
    #: Seconds after which it is taken to begin never.
    limit: float = 30.0
    #: Whether the holder is behind the relay.
    is_remote: bool = False


_HARMS = (
    _Harm(title="SIGKILL", do=_Holder.kill),
    _Harm(title=f"SIGSTOP (L = {LIVENESS} s)", do=_Holder.freeze, afterwards=_Holder.thaw),
    _Harm(title=f"lost node (L = {LIVENESS} s)", do=_Holder.cut_off, limit=60, is_remote=True),
    _Harm(title="its session terminated", do=_Holder.terminate),
    _Harm(title="a crash of the server", do=_Holder.crash_server),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    #: Seconds until the next body began; none where it never did.
    seconds: float | None
    #: How many bodies had begun before.
    before: int
    #: Seconds for which bodies ran side by side.
    overlap: float
    #: How many are committed at the end.
    effects: int


def figures(stage: Stage) -> Iterator[Figure]:
    """Seconds to the next body, and what became of both."""
    with own_server(100) as server:
        for harm in _HARMS:
            found: dict[str, list[_Result]] = {name: [] for name in _TAKING_PART}
            for _ in range(stage.times(3)):
                for name in _TAKING_PART:
                    found[name].append(_take_over(server, name, harm))
            row = Row(measure="takeover", title=f"next body after {harm.title}", relation="-")
            for name, results in found.items():
                yield Figure(
                    row=row,
                    contender=name,
                    values=tuple(each.seconds for each in results if each.seconds is not None),
                    note=_note(results),
                )


def _note(results: list[_Result]) -> str:
    before = max(result.before for result in results)
    never = sum(result.seconds is None for result in results)
    overlap = max(result.overlap for result in results)
    effects = max(result.effects for result in results)
    notes = [f"all {before} had begun"] if before > 1 else []
    notes += [f"{never} of {len(results)} never"] if 0 < never < len(results) else []
    notes += [f"{overlap:.1f} s side by side"] if overlap else []
    notes += [f"{effects} effects"] if effects != 1 else []
    return ", ".join(notes)


def _take_over(server: Server, name: str, harm: _Harm) -> _Result:
    with scene(name, server) as here, closing(Relay(here.stage.url)) as relay:
        url = relay.url if harm.is_remote else ""
        settings = {"ONCE_LIVENESS_TIMEOUT": str(LIVENESS)}
        first = here.fleet(1, url=url, settings={"PGAPPNAME": _NAME, **settings})
        first.wait_for_ready()  # two of some contenders cannot even load at once
        others = here.fleet(WAITERS, settings=settings)

        def is_running() -> bool:
            return first.is_running() or others.is_running()

        first.start()
        wait_until(here.calls, what="the first body to begin")
        others.start()
        _watch(PATIENCE, until=lambda: not others.is_running() or len(here.calls()) > WAITERS)
        before = here.calls()
        holder = _Holder(pid=before[0].pid, relay=relay, scene=here, server=server)
        died = time.time()
        harm.do(holder)
        _watch(harm.limit, until=lambda: len(before) > 1 or _next(here, died) or not is_running())
        following = _next(here, died)
        if harm.afterwards is not None:
            harm.afterwards(holder)
        _watch(AFTERWARDS, until=lambda: not is_running())
        here.end_bodies()
        others.wait(15)
        first.wait(5)
        here.kill()
        sql = f"SELECT count(*) FROM project_effect WHERE name = '{work.names(1)[0]}'"
        [(effects,)] = here.rows(sql)
        return _Result(
            seconds=following.begun - died if following else None,
            before=len(before),
            overlap=ledger.overlap(here.calls()),
            effects=effects,
        )


def _next(here: Scene, died: float) -> ledger.Call | None:
    return next((call for call in here.calls() if call.begun >= died), None)


def _watch(seconds: float, until: Callable[[], object]) -> None:
    """Wait for something that may never come."""
    with suppress(TimeoutError):
        wait_until(until, seconds)
