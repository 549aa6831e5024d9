"""The third act: a rolling deploy under load, in which processes are killed half-way."""

import os
import signal
from collections.abc import Sequence
from textwrap import fill

from example.demo import observations, truth
from example.demo.account import Account
from example.demo.balancer import Balancer
from example.demo.load import Load
from example.demo.processes import Gate, Process
from example.demo.servers import Server, Servers, release_environment
from example.demo.stage import ENTRYPOINT, ActFailed, Stage

__all__ = ["Rollout"]

#: They serve from the start, and their readiness view says no until everything is done.
BACKGROUND = {"ONCE_STARTUP": "background"}
#: Of each new server.
WORKERS = 2


class Rollout:
    """Replaces servers of release 2 by servers of release 3, one by one, and what is in the way.

    Release 3 has another version of a long routine. A job runs it, and is killed half-way.
    """

    def __init__(self, stage: Stage, servers: Servers, old: Sequence[Server]) -> None:
        self.stage = stage
        self.servers = servers
        self.old = list(old)
        self.balancer = Balancer()
        self.load = Load(self.balancer)
        self._children: list[Process] = []

    def play(self) -> Account:
        """Do it all."""
        self.stage.begin(
            "Release 3, with version 2 of geography.fold_names: a rolling deploy under load"
        )
        self.stage.partner.hold(release=3)
        with self.balancer:
            for server in self.old:
                self.balancer.add(server)
                self._await_ready(server)
            with self.load:
                first = self._kill_job()
                self._move()
                self._kill_announcer(first)
                self._replace_old(first)
        self._say(
            f"{self.load.sent.total():,} requests in {self.load.seconds:.1f} s, "
            f"{self.load.failed} failed; the slowest took {self.load.slowest:.2f} s."
        )
        account = Account(3, "process")
        account.note_processes(self._children)
        account.note_effects(self.stage)
        return account

    def _kill_job(self) -> Server:
        """Kill the job half-way, while the first new server waits for it; that server."""
        gate = Gate()
        first = self._start(3, gate)
        self.stage.await_events([first.process], "loaded", WORKERS)
        job = self.stage.processes.start("job", ENTRYPOINT, release_environment(3))
        self._children.append(job)
        self.stage.await_condition(
            lambda: self._batches() > 0, "it should have begun to fold names", [job]
        )
        gate.open()
        self.stage.await_condition(
            lambda: (
                self._batches() >= truth.BATCHES // 3
                and bool(observations.times([first.process], "waiting"))
                and self.balancer.status(first) == 503
            ),
            f"it should fold names while {first.name} waits for it",
            [job, first.process],
        )
        job.popen.kill()
        self.stage.await_end(job, -signal.SIGKILL)
        done = self._batches(job.pid)
        if not 0 < done < truth.BATCHES:
            raise ActFailed(f"The job was to be killed half-way, not after {done} batches.")
        self._say(
            f"A job ran `once run --migrate`, and was killed (SIGKILL) after {done} of "
            f"{truth.BATCHES} batches."
        )
        self._say(
            f"Meanwhile {first.name} came up on release 3. It said that it is not ready, waited "
            "for the job, and goes on after the last batch."
        )
        return first

    def _move(self) -> None:
        """Replace an old server by another old one, as if its node went away."""
        server = self.old.pop(0)
        moved = self._start(2)
        self._await_ready(moved)
        self._retire(server)
        self.old.append(moved)
        self._say(
            f"{server.name.capitalize()}, on release 2, had to move and became {moved.name}: a "
            "higher version had begun, so it ran nothing, and served."
        )

    def _kill_announcer(self, first: Server) -> None:
        """Kill the worker that tells the partner, which has acted, but has not answered yet."""
        self.stage.await_condition(
            self.stage.partner.holds.is_set, "a worker should tell the partner", [first.process]
        )
        teller, *_ = observations.pids([first.process], "started", truth.ANNOUNCEMENT)
        os.kill(teller, signal.SIGKILL)
        self.stage.partner.let_go()
        self._await_ready(first)
        self._say(
            f"A worker of {first.name} was killed (SIGKILL) when it had told the partner of the "
            "release and had not recorded it. Another one told it again, with the same key."
        )

    def _replace_old(self, first: Server) -> None:
        """One by one: start a new server, wait until it is ready, end an old one."""
        self._retire(self.old.pop())
        new = [first]
        while self.old:
            new.append(self._start(3))
            self._await_ready(new[-1])
            self._retire(self.old.pop())
        names = ", ".join(server.name for server in new)
        self._say(f"One by one, the servers of release 2 made way for {names}, of release 3.")

    def _start(self, release: int, gate: Gate | None = None) -> Server:
        server = self.servers.start(release, WORKERS, BACKGROUND, gate)
        self._children.append(server.process)
        self.balancer.add(server)
        return server

    def _await_ready(self, server: Server) -> None:
        self.stage.await_condition(
            lambda: self.balancer.is_ready(server), "it should become ready", [server.process]
        )

    def _retire(self, server: Server) -> None:
        """Send a server nothing more, then SIGTERM, and wait for its end."""
        self.balancer.drain(server)
        server.process.terminate()
        self.stage.await_end(server.process)

    def _batches(self, pid: int | None = None) -> int:
        """How many batches release 3 committed, or one process of it."""
        whose = "" if pid is None else f" AND pid = {pid}"
        ((count,),) = self.stage.database.rows(
            "SELECT count(*) FROM geography_effect WHERE release = 3 "
            f"AND routine = 'geography.fold_names'{whose}"
        )
        return int(count)

    def _say(self, text: str) -> None:
        self.stage.say(fill(text, 98, initial_indent="  - ", subsequent_indent="    "))
