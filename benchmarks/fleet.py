"""Fleets of processes on a server of their own, as this program sees them."""

import fcntl
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg

from benchmarks.project import ledger
from benchmarks.stage import Stage, on_server
from tests.faults.support import Server
from tests.project import Process
from tests.waiting import wait_until

__all__ = ["Answer", "Fleet", "Scene", "Usage", "own_server", "scene"]

_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def own_server(connections: int) -> Iterator[Server]:
    """A PostgreSQL that a measure may fill, stop and crash."""
    server = Server()
    try:
        server.execute(f"ALTER SYSTEM SET max_connections = {connections}")
        server.restart()
        yield server
    finally:
        server.end()


class Usage:
    """CPU time of a PostgreSQL: its main process, those that ended, and those that live."""

    def __init__(self, url: str) -> None:
        with psycopg.connect(url) as session:
            self._main, *_ = _stat(session.info.backend_pid)

    @property
    def seconds(self) -> float:
        """So far."""
        _, own, ended = _stat(self._main)
        return own + ended + sum(self._living())

    def _living(self) -> Iterator[float]:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it may end meanwhile
                parent, own, _ = _stat(int(process.name))
                if parent == self._main:
                    yield own


def _stat(pid: int) -> tuple[int, float, float]:
    """A process's parent, its CPU time, and that of its children that ended (proc(5), "stat")."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, user_of_children, system_of_children = map(int, fields[11:15])
    own, ended = user + system, user_of_children + system_of_children
    return int(fields[1]), own / _TICKS, ended / _TICKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a process said at its end."""

    pid: int
    #: By ``time.time()``.
    at: float
    #: Why it is not ready; empty where it is.
    error: str
    #: Seconds of CPU time.
    cpu: float


class Fleet:
    """Processes that stand ready."""

    def __init__(self, process: Process, barrier: Path) -> None:
        self._process = process
        self._gate = barrier.open("w")
        fcntl.flock(self._gate, fcntl.LOCK_EX)

    def wait_for_ready(self) -> None:
        """Wait until they have loaded what they need."""
        self._process.wait_for("ready", timeout=120)

    def start(self) -> None:
        """Let them begin, all at once."""
        self.wait_for_ready()
        self._gate.close()

    def is_running(self) -> bool:
        """Whether any has not ended."""
        return self._process.is_running()

    def answers(self) -> list[Answer]:
        """What those said that came to their end."""
        lines = [line for line in self._process.output.splitlines() if line.startswith("{")]
        return [Answer(**json.loads(line)) for line in lines]

    def wait(self, timeout: float) -> list[Answer]:
        """Wait for the end of all of them, at most that many seconds; what they said."""
        with suppress(TimeoutError):
            wait_until(lambda: not self.is_running(), timeout, "the end of a fleet")
        return self.answers()

    def kill(self) -> None:
        """End what is left of them."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One contender with one long routine on a database of its own."""

    contender: str
    stage: Stage
    #: Where its bodies leave their signs, and its processes their output.
    directory: Path
    _fleets: list[Fleet] = field(default_factory=list)

    def fleet(
        self,
        count: int,
        *,
        url: str = "",
        apart: bool = False,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Fleet:
        """Have processes stand ready.

        Args:
            count: how many.
            url: of the same database on another way.
            apart: whether each has a routine of its own.
            settings: what else is to be in their environment.

        """
        number = len(self._fleets)
        barrier = self.directory / f"barrier-{number}"
        barrier.touch()
        command = [sys.executable, "-m", "benchmarks.project.fleet"]
        command += [self.contender, str(count), str(barrier), str(self.directory)]
        environment = {**settings, "DATABASE_URL": url or self.stage.url}
        environment["TMPDIR"] = str(self.directory)  # who is killed leaves behind what it wrote
        process = Process(
            ["setsid", *command, *["apart"] * apart],  # so that all of them can be ended at once
            self.stage.environment(**environment),
            self.directory / f"log-{number}",
        )
        self._fleets.append(Fleet(process, barrier))
        return self._fleets[-1]

    def calls(self) -> list[ledger.Call]:
        """The calls of the body so far."""
        return ledger.calls(self.directory)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a statement answers, on a connection of its own."""
        with psycopg.connect(self.stage.url, autocommit=True) as session:
            return session.execute(sql).fetchall()

    def end_bodies(self) -> None:
        """Let the bodies come to their end."""
        ledger.end(self.directory)

    def kill(self) -> None:
        """End all processes."""
        for fleet in self._fleets:
            fleet.kill()


@contextmanager
def scene(contender: str, server: Server) -> Iterator[Scene]:
    """A scene on a server."""
    with (
        tempfile.TemporaryDirectory(prefix="once-benchmarks-") as directory,
        on_server(server.url, None) as stage,
    ):
        found = Scene(contender=contender, stage=stage, directory=Path(directory))
        try:
            yield found
        finally:
            found.kill()
            wait_until(lambda: _answers(server), what="a connection to be free")


def _answers(server: Server) -> bool:
    try:
        server.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
