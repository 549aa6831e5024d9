"""What was promised, and what is there: a model of the promise that knows no code of ``once``."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tests.chaos.plan import Plan, Routine
from tests.project import Project

__all__ = ["Attempt", "Facts", "Freeze", "Start", "Watch", "judge", "look", "undone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A body that began, from the file."""

    routine: str
    version: int
    label: str
    release: int
    attempt: int
    key: str
    pid: int
    time: float
    #: Completions of routines that come before: their names and versions.
    seen: list[list[Any]]

    def is_of_zombie(self, frozen: list["Freeze"]) -> bool:
        """Whether its process was frozen until just before.

        Between the last question of the engine and the first statement of a body nobody can tell a
        process that it was frozen: that is what the token is for.
        """
        return any(one.pid == self.pid and 0 <= self.time - one.end < 1 for one in frozen)


@dataclass(frozen=True, slots=True)
class Freeze:
    """A process did nothing up to a moment."""

    pid: int
    end: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of the history."""

    routine: str
    number: int
    version: int
    scope_key: str
    state: str
    #: Whether another one may follow by itself.
    retry: bool = True


@dataclass(slots=True, kw_only=True)
class Facts:
    """What an outsider sees at one moment."""

    #: Routine, version and scope key.
    completions: set[tuple[str, int, str]] = field(default_factory=set)
    #: Routine, version, label and item, of each row.
    effects: list[tuple[str, int, str, int]] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    frozen: list[Freeze] = field(default_factory=list)


#: One statement, and so one snapshot.
_SNAPSHOT = """
    SELECT 1, routine, version, scope_key, 0 FROM once_completion WHERE routine LIKE 'plant.%'
    UNION ALL SELECT 0, routine, version, label, item FROM chaos_effect
"""


def look(project: Project, starts: Path) -> Facts:
    """What is there now."""
    facts = Facts()
    _look_at_rows(project, facts)
    facts.attempts = [
        Attempt(*row)
        for row in project.rows(
            "SELECT routine, number, version, scope_key, state, retry FROM once_attempt "
            "WHERE routine LIKE 'plant.%' ORDER BY routine, number"
        )
    ]
    if starts.exists():
        facts.starts = [Start(**json.loads(line)) for line in starts.read_text().splitlines()]
    return facts


def _look_at_rows(project: Project, facts: Facts) -> None:
    for is_completion, routine, version, label, item in project.rows(_SNAPSHOT):
        if is_completion:
            facts.completions.add((routine, version, label))
        else:
            facts.effects.append((routine, version, label, item))


class Watch:
    """Looks again and again while a round goes on."""

    def __init__(self, project: Project, plan: Plan) -> None:
        self._project = project
        self._plan = plan
        self._is_over = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.violations: set[str] = set()
        #: Seen twice: InnoDB shows a commit a moment before it is on disk.
        self.completions: set[tuple[str, int, str]] = set()
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        before: set[tuple[str, int, str]] = set()
        while not self._is_over.wait(0.2):
            facts = Facts()
            try:
                _look_at_rows(self._project, facts)
            except Exception as error:
                # The server crashed, or comes back; anything else is a fault of this program.
                if not any(one.__name__ == "OperationalError" for one in type(error).__mro__):
                    self.violations.add(f"the observer failed: {error!r}")
                continue
            self.violations.update(_lost(self.completions, facts))
            self.violations.update(_of_effects(self._plan, facts))
            self.completions |= before & facts.completions
            before = facts.completions
            if self._plan.is_lossy:  # the recording of what took place outside is waited for
                durable = {one.name for one in self._plan.routines if one.kind == "external"}
                before = {one for one in before if one[0] in durable}


def judge(plan: Plan, facts: Facts, seen: set[tuple[str, int, str]]) -> list[str]:
    """In what the facts, at the end of a round, differ from what was promised.

    Args:
        plan: what the processes ran.
        facts: what is there.
        seen: the completions that were there before.

    """
    found = [*_lost(seen, facts), *_of_effects(plan, facts), *_of_attempts(plan, facts)]
    for routine in plan.routines:
        starts = [start for start in facts.starts if start.routine == routine.name]
        found += _of_starts(plan, routine, starts, facts)
        for release, version in enumerate(routine.versions):
            if version == routine.versions[-1]:
                found += _of_end(plan, routine, release, facts)
    return found


def undone(plan: Plan, facts: Facts, release: int) -> set[str]:
    """The routines of a release of which neither that version nor a higher one is completed."""
    highest = {name: version for name, version, _ in sorted(facts.completions)}
    return {
        one.name
        for one in plan.routines
        if (one.name, one.versions[release], _scope_key(plan, facts, one, release))
        not in facts.completions
        and highest.get(one.name, 0) <= one.versions[release]
    }


def _scope_key(plan: Plan, facts: Facts, routine: Routine, release: int) -> str | None:
    """What the record calls a scope. Of a content scope, only its attempts can tell that."""
    label = plan.label(routine, release)
    if routine.scope != "content":
        return label
    keys = {(one.routine, one.number): one.scope_key for one in facts.attempts}
    own = [one for one in facts.starts if (one.routine, one.label) == (routine.name, label)]
    return keys.get((own[0].routine, own[0].attempt)) if own else None


def _lost(seen: set[tuple[str, int, str]], facts: Facts) -> Iterator[str]:
    for lost in sorted(seen - facts.completions):
        yield f"the completion of {lost} disappeared"


def _of_effects(plan: Plan, facts: Facts) -> Iterator[str]:
    """Each effect once; those of a completion all there; of an atomic body, none without it."""
    counts = Counter(facts.effects)
    for row, count in counts.items():
        if count > 1:
            yield f"the effect {row} exists {count} times"
    for one in plan.routines:
        if one.kind == "external":
            continue
        for version in sorted(set(one.versions)):
            items = Counter(row[2] for row in counts if row[:2] == (one.name, version))
            keys = {key for name, v, key in facts.completions if (name, v) == (one.name, version)}
            whole = {label for label, count in items.items() if count == one.items}
            named = f"{one.kind} {one.name} v{version}"
            if one.scope == "content":  # what it is called is the engine's affair
                is_more, is_less = len(keys) > len(whole), len(keys) < len(whole)
            else:
                is_more, is_less = bool(keys - whole), bool(whole - keys)
            if is_more or (one.kind == "atomic" and (is_less or len(whole) < len(items))):
                yield f"{named}: completed {sorted(keys)}, with effects {dict(items)}"


def _of_starts(plan: Plan, routine: Routine, starts: list[Start], facts: Facts) -> Iterator[str]:
    """Growing tokens, one key, the order of ``after``, at most once."""
    if routine.kind == "external":  # of the others, only what commits counts
        for before, start in pairwise(starts):
            is_older = start.attempt <= before.attempt or start.version < before.version
            if is_older and not start.is_of_zombie(facts.frozen):
                yield f"external {routine.name}: {start} began after {before}"
    for version, label in sorted({(start.version, start.label) for start in starts}):
        own = [start for start in starts if (start.version, start.label) == (version, label)]
        named = f"{routine.kind} {routine.name} v{version} {label}"
        if len({start.key for start in own}) > 1:
            yield f"{named}: keys {sorted({start.key for start in own})}"
        # A stop between two batches leaves none half-way, and the next attempt goes on there.
        stopped = {
            one.number
            for one in facts.attempts
            if one.routine == routine.name and one.state == "interrupted"
        }
        began = {one.attempt for one in own} - stopped if routine.kind == "batched" else own
        if not routine.retry and len(began) > 1:
            yield f"{named}: retry=False, and attempts {[start.attempt for start in own]} began"
    versions = {one.name: one.versions for one in plan.routines}
    for start in starts:
        for name in routine.after:
            wanted = versions[name][start.release]
            if not any(found == name and version >= wanted for found, version in start.seen):
                yield f"{routine.name} began before {name} v{wanted} was done: {start}"


def _of_attempts(plan: Plan, facts: Facts) -> Iterator[str]:
    for before, one in pairwise(facts.attempts):
        if before.routine == one.routine and one.version < before.version:
            yield f"superseded: {one} was begun after {before}"
    for one in facts.attempts:
        if one.state == "running":
            yield f"still running: {one}"


def _of_end(plan: Plan, routine: Routine, release: int, facts: Facts) -> Iterator[str]:
    """At the end of the round it is completed, or held, or behind what is held."""
    version = routine.versions[release]
    key = _scope_key(plan, facts, routine, release)
    named = f"{routine.name} v{version} {plan.label(routine, release)}"
    if (routine.name, version, key) in facts.completions:
        own = (routine.name, version, plan.label(routine, release))
        if not any((one.routine, one.version, one.label) == own for one in facts.starts):
            yield f"{named} is completed and its body never began"
        return
    holds = [
        one
        for one in facts.attempts
        if (one.routine, one.version) == (routine.name, version)
        and key in (None, one.scope_key)
        and not (one.retry or one.state == "succeeded")
    ]
    by_name = {one.name: one for one in plan.routines}
    is_held = not routine.retry and bool(holds)
    is_behind = any(name in undone(plan, facts, release) for name in _ahead(by_name, routine))
    if not is_held and not is_behind:
        yield f"{named} is neither completed nor held"


def _ahead(by_name: dict[str, Routine], routine: Routine) -> set[str]:
    found = set(routine.after)
    for name in routine.after:
        found |= _ahead(by_name, by_name[name])
    return found
