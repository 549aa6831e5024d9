"""Zombies of every kind: frozen at a step, succeeded by another process, thawed beside it."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.project import LIVENESS, Process, Project
from tests.shop.calls import calls
from tests.waiting import GRACE, wait_until

#: Every body notes its call, leaves its effect and holds, a batched one in its second batch.
ROUTINES = """
    from tests.shop.calls import note


    def declare(name, **options):
        @routine(name=f"plant.{name}", **options)
        def body(run):
            note(name, run)
            effect(name)
            hold(f"{name}-{run.attempt}")


    def declare_batched(name, **options):
        @routine(name=f"plant.{name}", over=lambda: range(1, 6), batch_size=2, **options)
        def body(items, run):
            note(name, run)
            for item in items:
                effect(f"{name}{item}")
            if 3 in items:
                hold(f"{name}-{run.attempt}")


    declare("atomic")
    declare_batched("batched")
    declare("external", atomic=False)
    declare("atomic_once", retry=False)
    declare_batched("batched_once", retry=False)
    declare("external_once", atomic=False, retry=False)
"""
RETRIED = ["atomic", "batched", "external"]
HELD = ["atomic_once", "batched_once", "external_once"]

GUARDED = "once.guards:SessionGuard.yielding=step"
CLAIMED = "once.claim:Claim._attempt=step"

#: Behind a pooler, the guard and the work of a zombie and those of its heir all pin a session.
pytestmark = pytest.mark.parametrize("kind", ["postgresql", "pgbouncer-40", "mariadb"])


@dataclass(frozen=True, slots=True)
class Pair:
    """A zombie and who takes over from it, at one routine."""

    project: Project
    name: str
    zombie: Process
    heir: Process

    def effects(self) -> list[str]:
        """The effects that are committed, with ``+`` if they are the heir's."""
        marks = {self.zombie.pid: "", self.heir.pid: "+"}
        rows = self.project.rows("SELECT name, pid FROM shop_effect")
        found = [(name, pid) for name, pid in rows if name.rstrip("0123456789") == self.name]
        return sorted(name.removeprefix(self.name) + marks[pid] for name, pid in found)

    def calls(self) -> list[str]:
        """Whom the body was called by, and as which attempt; all of them under the same key."""
        found = calls(self.project.directory, self.name)
        assert len({call.key for call in found}) <= 1
        who = {self.zombie.pid: "zombie", self.heir.pid: "heir"}
        return [f"{who[call.pid]} {call.attempt}" for call in found]

    def states(self) -> list[str]:
        """How the attempts stand."""
        return [state for name, _, state in self.project.attempts() if name == f"plant.{self.name}"]

    def has_taken_over(self, attempt: int) -> bool:
        """Whether the heir works as that attempt, or has left the routine to a person."""
        if self.name in HELD and attempt > 1:
            return self.states()[:1] == ["lost"]
        return self.heir.pid in self.project.reached(f"{self.name}-{attempt}")

    def go_on(self, attempt: int) -> None:
        """Let the body of an attempt go on."""
        self.project.release(f"{self.name}-{attempt}")


@dataclass(slots=True)
class Scene:
    """A pair for each kind of routine."""

    project: Project
    pairs: dict[str, Pair]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs.values())

    def freeze(self, *, heirs_attempt: int) -> None:
        """Freeze the zombies and wait for their heirs, no longer than is promised."""
        for pair in self:
            pair.heir.wait_for("Waiting")
        clock = "UTC_TIMESTAMP(6)" if self.project.is_mysql else "clock_timestamp()"
        [(frozen_at,)] = self.project.rows(f"SELECT {clock}")
        for pair in self:
            pair.zombie.send(signal.SIGSTOP)
        for pair in self:
            wait_until(
                lambda: pair.has_taken_over(heirs_attempt),  # noqa: B023
                what=lambda: f"{pair.name} to be taken over:\n{pair.heir.output}",  # noqa: B023
            )
        claimed = self.project.rows(
            f"SELECT started_at FROM once_attempt WHERE number = {heirs_attempt}"
        )
        assert len(claimed) == len(self.pairs)
        for (claimed_at,) in claimed:
            assert (claimed_at - frozen_at).total_seconds() < LIVENESS + GRACE

    def thaw(self) -> None:
        """Let the zombies go on, beside their heirs."""
        for pair in self:
            pair.zombie.send(signal.SIGCONT)


def start(project: Project, step: str = "") -> Scene:
    """Bring a process for each routine to a step, or into its body; second ones wait for them."""
    project.routines(ROUTINES)
    names = [*RETRIED, *HELD]
    zombies = {name: project.once("run", f"plant.{name}", TEST_HOLD=step) for name in names}
    for name in names:
        project.wait_for("step" if step else f"{name}-1", len(names) if step else 1)
    heirs = {name: project.once("run", f"plant.{name}") for name in names}
    return Scene(project, {name: Pair(project, name, zombies[name], heirs[name]) for name in names})


def test_frozen_in_the_body(project: Project) -> None:
    scene = start(project)
    scene.freeze(heirs_attempt=2)
    for pair in scene:
        pair.go_on(1)
    scene.thaw()
    # The heirs of those that may be tried again are in their bodies.
    for pair in scene:
        assert pair.zombie.finish() == 1, pair.zombie.output
        assert "Attempt 1 lost its right to commit" in pair.zombie.output
    zombies_own = {name: pair.effects() for name, pair in scene.pairs.items()}
    for name in RETRIED:
        scene.pairs[name].go_on(2)
    for pair in scene:
        assert pair.heir.finish() == (5 if pair.name in HELD else 0), pair.heir.output
    assert zombies_own == {
        "atomic": [],
        "batched": ["1", "2"],
        "external": ["", "+"],  # outside of any transaction, that of the heir as well
        "atomic_once": [],
        "batched_once": ["1", "2"],
        "external_once": [""],
    }
    assert {name: pair.effects() for name, pair in scene.pairs.items()} == {
        **zombies_own,
        "atomic": ["+"],
        "batched": ["1", "2", "3+", "4+", "5+"],
    }
    assert {name: pair.calls() for name, pair in scene.pairs.items()} == {
        "atomic": ["zombie 1", "heir 2"],
        "batched": ["zombie 1", "zombie 1", "heir 2", "heir 2"],
        "external": ["zombie 1", "heir 2"],
        "atomic_once": ["zombie 1"],
        "batched_once": ["zombie 1", "zombie 1"],
        "external_once": ["zombie 1"],
    }
    assert project.completions() == [f"plant.{name}" for name in RETRIED]
    for name in RETRIED:
        assert scene.pairs[name].states() == ["lost", "succeeded"]
    for name in HELD:
        assert scene.pairs[name].states() == ["lost", "interrupted"]


def test_frozen_between_guard_and_claim(project: Project) -> None:
    scene = start(project, GUARDED)
    scene.freeze(heirs_attempt=1)
    project.release("step")
    scene.thaw()
    for pair in scene:
        # It finds out, leaves its live heir alone, and waits for it.
        pair.zombie.wait_for("Waiting")
        pair.go_on(1)
    for pair in scene:
        assert pair.heir.finish() == 0, pair.heir.output
        assert pair.zombie.finish() == 0, pair.zombie.output
        assert pair.states() == ["succeeded"]
        if "batched" in pair.name:
            assert pair.effects() == ["1+", "2+", "3+", "4+", "5+"]
            assert pair.calls() == ["heir 1"] * 3
        else:
            assert pair.effects() == ["+"]
            assert pair.calls() == ["heir 1"]


def test_frozen_between_claim_and_fence(project: Project) -> None:
    scene = start(project, CLAIMED)
    scene.freeze(heirs_attempt=2)
    project.release("step")
    scene.thaw()
    for name in RETRIED:
        pair = scene.pairs[name]
        pair.zombie.wait_for("Waiting")
        pair.go_on(2)
    for name in RETRIED:
        pair = scene.pairs[name]
        assert pair.heir.finish() == 0, pair.heir.output
        assert pair.zombie.finish() == 0, pair.zombie.output
        assert pair.states() == ["lost", "succeeded"]
        if name == "batched":
            assert pair.effects() == ["1+", "2+", "3+", "4+", "5+"]
            assert pair.calls() == ["heir 2"] * 3
        else:
            assert pair.effects() == ["+"]
            assert pair.calls() == ["heir 2"]
    for name in HELD:  # the heir cannot know that the body was not called
        pair = scene.pairs[name]
        for process in (pair.heir, pair.zombie):
            assert process.finish() == 5, process.output
            assert "Held, since retry=False" in process.output
        assert pair.effects() == pair.calls() == []
        assert pair.states() == ["lost", "interrupted"]
