"""Every fault at every step of the protocol, for every kind of routine, on every database.

What must be there in the end is told by the step alone: by what had happened there.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.faults.support import end_sessions
from tests.forks import Fork, Forks
from tests.project import LIVENESS, Project
from tests.shop.calls import calls
from tests.shop.steps import STEPS
from tests.waiting import GRACE, wait_until

#: Every body notes its call, which no transaction takes back, and leaves its effects.
ROUTINES = """
    from tests.shop.calls import note


    def declare(name, **options):
        @routine(name=f"plant.{name}", **options)
        def body(run):
            note(name, run)
            effect(name)


    def declare_batched(name, **options):
        @routine(name=f"plant.{name}", over=lambda: range(1, 6), batch_size=2, **options)
        def body(items, run):
            note(name, run)
            for item in items:
                effect(f"{name}{item}")


    declare("atomic")
    declare_batched("batched")
    declare("external", atomic=False)
    declare("atomic_once", retry=False)
    declare_batched("batched_once", retry=False)
    declare("external_once", atomic=False, retry=False)
"""
NAMES = ["atomic", "batched", "external", "atomic_once", "batched_once", "external_once"]
BATCHES = [["1", "2"], ["3", "4"], ["5"]]

#: Behind a pooler, six zombies and six successors pin two sessions each.
SERVERS = ["postgresql", "pgbouncer-40", "mariadb"]

pytestmark = pytest.mark.parametrize("step", STEPS)


@dataclass(frozen=True, slots=True)
class Scene:
    """A process that came to a step of a routine's first attempt, and maybe a second one."""

    project: Project
    forks: Forks
    name: str
    step: str
    first: Fork
    seconds: list[Fork] = field(default_factory=list)

    # What had happened at the step:

    def is_past(self, step: str) -> bool:
        """Whether the step is that one, or comes after it."""
        return [*STEPS].index(self.step) >= [*STEPS].index(step)

    @property
    def kind(self) -> str:
        return self.name.removesuffix("_once")

    @property
    def is_claimed(self) -> bool:
        return self.is_past("after-claim")

    @property
    def called(self) -> int:
        """How many calls of the body there were: the first batch is where a process holds."""
        if self.kind == "batched" and self.step == "before-release":
            return len(BATCHES)
        return int(self.is_past("after-body"))

    @property
    def committed(self) -> int:
        """How many of them are committed."""
        return self.called if self.is_past("after-commit") else 0

    @property
    def is_done(self) -> bool:
        return self.committed == self.calls_in_all

    @property
    def batches(self) -> list[list[str]]:
        """What the body is called for, a call each."""
        return BATCHES if self.kind == "batched" else [[""]]

    @property
    def calls_in_all(self) -> int:
        return len(self.batches)

    @property
    def is_working(self) -> bool:
        """Whether effects are there that are neither committed nor recorded."""
        return self.is_past("after-body") and not self.is_past("after-commit")

    @property
    def is_once(self) -> bool:
        return self.name.endswith("_once")

    @property
    def is_held(self) -> bool:
        """Whether a successor has to leave it to a person: it cannot know about the body."""
        return self.is_once and self.is_claimed and not self.is_done

    # What must be there in the end:

    def assert_done_once(self) -> None:
        """What was not committed, the second process did; or a person decides, who is asked."""
        number = 2 if self.is_claimed else 1
        repeated = 0 if self.is_done or self.is_held else self.calls_in_all - self.committed
        assert self.calls() == ["first 1"] * self.called + [f"second {number}"] * repeated
        self.assert_effects(repeated=repeated)
        if self.is_done:
            states = ["succeeded"]
        else:
            states = ["lost"] * self.is_claimed + ["interrupted" if self.is_held else "succeeded"]
        assert self.states() == states
        assert self.is_completed() is not self.is_held

    def assert_effects(self, *, repeated: int) -> None:
        """Of each call that counts, the effects exist once, by the process that made it."""
        first = self.called if self.kind == "external" else self.committed
        second = self.batches[len(self.batches) - repeated :]
        assert self.effects() == [
            *(f"first {item}".strip() for batch in self.batches[:first] for item in batch),
            *(f"second {item}".strip() for batch in second for item in batch),
        ]

    def calls(self) -> list[str]:
        """Who called the body, and as which attempt; all of them under the same key."""
        found = calls(self.project.directory, self.name)
        assert len({call.key for call in found}) <= 1
        return [f"{self._who(call.pid)} {call.attempt}" for call in found]

    def effects(self) -> list[str]:
        """Whose effects are committed, of which item."""
        rows = self.project.rows("SELECT name, pid FROM shop_effect ORDER BY name, id")
        own = [(name, pid) for name, pid in rows if name.rstrip("0123456789") == self.name]
        return [f"{self._who(pid)} {name.removeprefix(self.name)}".strip() for name, pid in own]

    def states(self) -> list[str]:
        return [state for name, _, state in self.project.attempts() if name == f"plant.{self.name}"]

    def is_completed(self) -> bool:
        return f"plant.{self.name}" in self.project.completions()

    def _who(self, pid: int) -> str:
        return "first" if pid == self.first.pid else "second"

    # What is done to it:

    def go_on(self) -> None:
        self.project.release(f"{self.name}-first")

    def follow(self) -> Fork:
        """Start a second process, which holds with effects that are not committed."""
        second = self.forks.once(
            "run", f"plant.{self.name}", hold=f"before-commit={self.name}-second"
        )
        self.seconds.append(second)
        return second


@pytest.fixture
def scenes(project: Project, kind: str, step: str) -> Iterator[Iterator[list[Scene]]]:
    """Scenes that may be on stage at once: SQLite has one lock for the whole database."""
    project.routines(ROUTINES)
    forks = Forks(project)

    def start(names: list[str]) -> list[Scene]:
        firsts = {
            name: forks.once("run", f"plant.{name}", hold=f"{step}={name}-first") for name in names
        }
        for name in names:
            project.wait_for(f"{name}-first")
        return [Scene(project, forks, name, step, firsts[name]) for name in names]

    yield (start(names) for names in ([[name] for name in NAMES] if kind == "sqlite" else [NAMES]))
    forks.close()


@pytest.mark.parametrize("kind", [*SERVERS, "sqlite"])
def test_killed(scenes: Iterator[list[Scene]]) -> None:
    for together in scenes:
        for scene in together:
            scene.first.kill()
        for scene in together:
            scene.follow()
            scene.project.release(f"{scene.name}-second")
        for scene in together:
            [second] = scene.seconds
            assert second.finish() == (5 if scene.is_held else 0), second.output
            scene.assert_done_once()


@pytest.mark.parametrize("kind", SERVERS)
def test_frozen_and_thawed_beside_its_successor(scenes: Iterator[list[Scene]]) -> None:
    [together] = scenes
    for scene in together:
        second = scene.follow()
        if not scene.is_done:
            second.wait_for("Waiting")
    project = scene.project
    clock = "UTC_TIMESTAMP(6)" if project.is_mysql else "clock_timestamp()"
    [(frozen_at,)] = project.rows(f"SELECT {clock}")
    for scene in together:
        scene.first.send(signal.SIGSTOP)
    for scene in together:
        [second] = scene.seconds
        if scene.is_done or scene.is_held:
            assert second.finish() == (5 if scene.is_held else 0), second.output
        else:
            project.wait_for(f"{scene.name}-second")
    # A loaded machine may have cost a holder its lock, and a successor have come, before that.
    claimed = project.rows(
        f"SELECT started_at FROM once_attempt WHERE number = {2 if scene.is_claimed else 1}"
    )
    assert len(claimed) == sum(not scene.is_done for scene in together)
    for (claimed_at,) in claimed:
        assert (claimed_at - frozen_at).total_seconds() < LIVENESS + GRACE
    for scene in together:
        scene.go_on()
        scene.first.send(signal.SIGCONT)
    for scene in together:
        # It leaves its live successor alone, and ends or waits for it.
        first = scene.first
        wait_until(
            lambda: not first.is_running() or "Waiting" in first.output,  # noqa: B023
            what=lambda: f"{scene.name}:\n{first.output}",  # noqa: B023
        )
        project.release(f"{scene.name}-second")
    for scene in together:
        first, [second] = scene.first, scene.seconds
        assert second.finish() == (5 if scene.is_held else 0), second.output
        # It waits for what its successor does, as if it came only now.
        assert first.finish() == (5 if scene.is_held else 0), first.output
        if scene.is_working:
            assert "Attempt 1 lost its right to commit" in first.output, first.output
        scene.assert_done_once()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_frozen_is_waited_for(scenes: Iterator[list[Scene]]) -> None:
    for [scene] in scenes:
        scene.first.send(signal.SIGSTOP)
        second = scene.follow()
        if scene.is_done:
            assert second.finish() == 0, second.output
        else:
            second.wait_for("Waiting")
        scene.go_on()
        scene.first.send(signal.SIGCONT)
        assert [scene.first.finish(), second.finish()] == [0, 0], scene.first.output
        assert scene.calls() == ["first 1"] * scene.calls_in_all
        assert scene.states() == ["succeeded"]
        assert scene.is_completed()


@pytest.mark.parametrize("kind", SERVERS)
def test_disconnected_and_nobody_else_there(scenes: Iterator[list[Scene]]) -> None:
    [together] = scenes
    end_sessions(together[0].project)
    for scene in together:
        scene.go_on()
    for scene in together:
        # An outside body is never called again by the same run: its effects are recorded.
        is_undone = scene.is_working and scene.kind != "external"
        is_held = is_undone and scene.is_once
        assert scene.first.finish() == (4 if is_held else 0), scene.first.output
        again = 0 if is_held else scene.calls_in_all - (0 if is_undone else scene.called)
        assert len(scene.calls()) == scene.called + again
        assert len(scene.effects()) == (0 if is_held else sum(map(len, scene.batches)))
        assert scene.states()[-1] == ("interrupted" if is_held else "succeeded")
        assert scene.is_completed() is not is_held
