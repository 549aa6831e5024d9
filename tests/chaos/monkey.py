"""A round: processes that run what is pending, and what happens to them."""

import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Thread

from tests.chaos.observer import Facts, Freeze, Watch, judge, look, undone
from tests.chaos.plan import Event, Plan
from tests.chaos.site import Site, write_releases
from tests.project import ROOT, Process, Project
from tests.waiting import wait_until

__all__ = ["Round"]

#: Seconds in which processes must end that nothing is done to any more.
_PATIENCE = 90.0
_MANAGE = [sys.executable, "-m", "tests.manage"]
_SERVER = [*_MANAGE, "shell", "-v0", "-c", "pass"]  # by ONCE_STARTUP_COMMANDS of the site
_ONCE = [*_MANAGE, "once"]
_WAYS = {
    "once run": ([*_ONCE, "run"], 5),
    "once run --keep-going": ([*_ONCE, "run", "--keep-going"], 2),
    "once run --no-wait": ([*_ONCE, "run", "--no-wait"], 1),
    "server": (_SERVER, 4),
    "once wait": ([*_ONCE, "wait", "--timeout=10"], 1),
}
#: What the migrations of later releases do to the record, and who saves space.
_CHANGES = {
    "alter": ("ALTER TABLE {0} ADD COLUMN {1} integer NULL", "ALTER TABLE {0} DROP COLUMN {1}"),
    "rewrite": ("VACUUM FULL {0}",),
}


@dataclass(slots=True, kw_only=True)
class Round:
    """One round. What happened is in ``history``, and what differs in ``violations``."""

    plan: Plan
    site: Site
    project: Project
    #: How many processes live at once.
    size: int
    history: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    _releases: list[Path] = field(default_factory=list)
    _release: int = 0
    _alive: list[Process] = field(default_factory=list)
    _frozen: dict[int, tuple[Process, float]] = field(default_factory=dict)
    _thawed: list[Freeze] = field(default_factory=list)
    _changes: list[Thread] = field(default_factory=list)
    #: Routines that a person paused.
    _paused: set[str] = field(default_factory=set)
    _random: Random = field(init=False)
    _begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._random = Random(f"{self.plan.name}/processes")
        self._releases = write_releases(self.project, self.plan)

    def play(self) -> None:
        """Do it all, and judge what is left."""
        if self.plan.is_lossy:
            self._note("crashes of the server lose commits")
            self.site.lose(self.project)
        watch = Watch(self.project, self.plan)
        for event in self.plan.events:
            until = time.monotonic() + event.pause
            while time.monotonic() < until:
                self._attend(self.size)
                time.sleep(0.02)
            self._happen(event)
        self._settle()
        watch.end()
        self.violations += sorted(watch.violations)
        self._last_runs()
        try:
            wait_until(lambda: not self.site.left(self.project), 15)
        except TimeoutError:
            self.violations.append(f"left behind: {self.site.left(self.project)}")
        self.facts = look(self.project, self._starts)
        self.facts.frozen = self._thawed
        self.violations += judge(self.plan, self.facts, watch.completions)
        self.figures["effects"] += len(self.facts.effects)
        self.figures["bodies"] += len(self.facts.starts)
        self.figures["completions"] += len(self.facts.completions)
        self.figures["takeovers"] += sum(one.state == "lost" for one in self.facts.attempts)

    @property
    def _starts(self) -> Path:
        return Path(self.project.environment["CHAOS_STARTS"])

    def _note(self, what: str, pid: int | str = "") -> None:
        self.history.append(
            f"{time.time():.3f} +{time.monotonic() - self._begun:6.2f} {what} {pid}"
        )

    def _start(self, command: list[str], release: int) -> Process:
        path = os.pathsep.join([str(self._releases[release]), str(ROOT)])
        self.figures["processes"] += 1
        return self.project.start(*command, PYTHONPATH=path, ONCE_RELEASE=f"r{release}")

    def _attend(self, size: int) -> None:
        """Thaw who was frozen for long enough, note who ended, and fill up."""
        for process, until in list(self._frozen.values()):
            if time.monotonic() >= until:
                self._thaw(process)
        for process in list(self._alive):
            if not process.is_running():
                self._alive.remove(process)
                self._frozen.pop(process.pid, None)
                self._note(f"ended with {process.finish()}:", process.pid)
        if len(self._alive) < size:
            ways = list(_WAYS)
            [way] = self._random.choices(ways, [weight for _, weight in _WAYS.values()])
            release = self._release
            if self._random.random() < 0.2:  # an older replica returns
                release = self._random.randint(0, release)
            process = self._start(_WAYS[way][0], release)
            self._alive.append(process)
            self._note(f"{way} of release {release}:", process.pid)

    def _thaw(self, process: Process) -> None:
        del self._frozen[process.pid]
        self._thawed.append(Freeze(process.pid, time.time()))
        process.send(signal.SIGCONT)
        self._note("thaw", process.pid)

    def _happen(self, event: Event) -> None:
        if event.what == "deploy":
            self._release = min(self._release + 1, len(self._releases) - 1)
            self._note(f"deploy release {self._release}")
        elif event.what == "crash":
            self._note("crash the server")
            self.site.crash()
        elif event.what == "restart pooler":
            self._note("restart the pooler")
            self.site.restart_pooler()
        elif event.what in _CHANGES:
            self._change(event)
        elif event.what == "pause":
            routines = self.plan.routines
            self._pause(routines[int(event.choice * len(routines))].name)
        elif event.what in ("end lock", "end work"):
            sessions = self.site.sessions(self.project, event.what)
            if not sessions:
                return
            session = sessions[int(event.choice * len(sessions))]
            self._note(f"{event.what}: session", session)
            with suppress(Exception):  # it may have ended by itself
                self.site.end_session(self.project, session)
        else:
            process = self._chosen(event)
            if process is None:
                return
            self._note(event.what, process.pid)
            if event.what == "kill":
                process.kill()
            elif event.what == "stop":
                process.send(signal.SIGTERM)
            elif process.pid in self._frozen:
                return
            else:
                process.send(signal.SIGSTOP)
                self._frozen[process.pid] = process, time.monotonic() + event.seconds
        self.figures[event.what] += 1

    def _pause(self, name: str) -> None:
        """Pause a routine, or resume it if it may be paused."""
        what = "resume" if name in self._paused else "pause"
        wish = self._start([*_ONCE, what, name], len(self._releases) - 1)
        code = wish.finish()
        if what == "pause" or code == 0:  # else it may be paused still
            self._paused ^= {name}
        self._note(f"{what} {name} ended with {code}:", wish.pid)

    def _change(self, event: Event) -> None:
        """Begin to change a table of the record; it may have to wait for a body."""
        table = "once_attempt" if event.choice < 0.5 else "once_completion"
        name = f"chaos_{len(self._changes)}"

        def change() -> None:
            for statement in _CHANGES[event.what]:
                sql = statement.format(table, name)
                try:
                    self.project.execute(sql)
                except Exception as error:
                    # The server crashed, or chose it to be ended in a deadlock.
                    if not any(one.__name__ == "OperationalError" for one in type(error).__mro__):
                        self.violations.append(f"{sql} failed: {error!r}")
                    self._note(f"{sql} failed: {error!r}")
                    return
                self._note(sql)

        self._note(f"begin to {event.what} {table}")
        self._changes.append(Thread(target=change, daemon=True))
        self._changes[-1].start()

    def _chosen(self, event: Event) -> Process | None:
        if event.at_holder and self._starts.exists():
            lines = self._starts.read_text().splitlines()
            for process in self._alive:
                if lines and f'"pid": {process.pid},' in lines[-1]:
                    return process
        return self._alive[int(event.choice * len(self._alive))] if self._alive else None

    def _resume(self, name: str) -> None:
        """Resume a routine, again and again where the database cannot be used just then."""
        until = time.monotonic() + _PATIENCE
        code = 4
        while code == 4 and time.monotonic() < until:
            resumed = self._start([*_ONCE, "resume", name], len(self._releases) - 1)
            code = resumed.finish(_PATIENCE)
        if code:
            self.violations.append(f"resume of {name} ended with {code}: {resumed.output}")

    def _settle(self) -> None:
        """Let everybody go on, and end."""
        while self._frozen:  # a zombie that others took over from is worth the time
            self._attend(size=0)
            time.sleep(0.02)
        for name in sorted(self._paused):
            self._resume(name)
        until = time.monotonic() + _PATIENCE
        for process in self._alive:
            try:
                code = process.finish(max(1.0, until - time.monotonic()))
                self._note(f"ended with {code}:", process.pid)
            except TimeoutError as error:
                self.violations.append(f"did not end: {error}")
                process.kill()
        for change in self._changes:
            change.join(max(1.0, until - time.monotonic()))
            if change.is_alive():
                self.violations.append("a change of a table of the record did not end")

    def _last_runs(self) -> None:
        """Bring all to completion: the newest release, then the older ones that come back."""
        newest = len(self._releases) - 1
        for release in range(newest, -1, -1):
            code = 1
            tries = 0
            while code == 1 and tries < 1 + len(self.plan.routines):  # bodies that are to fail once
                tries += 1
                last = self._start([*_ONCE, "run"], release)
                try:
                    code = last.finish(_PATIENCE)
                except TimeoutError as error:
                    self.violations.append(f"the last run did not end: {error}")
                    return
                if code == 1 and "as planned" not in last.output:
                    break
            self._note(f"the last run of release {release} ended with {code}:", last.pid)
            held = undone(self.plan, look(self.project, self._starts), release)
            wanted = {5 if held else 0} if release == newest else {0, 3, 5}
            if code not in wanted:
                self.violations.append(f"exit code {code}, not {wanted}: {last.output}")
