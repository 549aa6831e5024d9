"""The history of a project: a database of each release, come to through all of those before.

Whatever releases it skips, an upgrade must end as this path does. Because each release writes rows,
the path has more of them than an upgrade began with. Each row tells its release, and so does each
effect on a row, so that those of later releases are left out of the comparison.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from tests.project import Process, Project
from tests.upgrades import releases
from tests.upgrades.comparison import NOTHING, Snapshot, differences
from tests.upgrades.databases import KINDS, Database
from tests.upgrades.releases import GATES, NEWEST

__all__ = ["History", "Report", "share"]

#: Each release with each later one; and no release, which is an empty database, with the last.
_PAIRS = [(old, new) for old in range(1, NEWEST) for new in range(old + 1, NEWEST + 1)]
_PAIRS.append((0, NEWEST))
#: Those that another release is between.
_SKIPS = [(old, new) for old, new in _PAIRS if new - old > 1]
_RUN = ("once", "run", "--migrate")
_KILLED = -9


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a database."""

    what: str
    #: The step before which a process was killed.
    killed: str
    #: How the database differs from what it is to be.
    differences: list[str]

    def __str__(self) -> str:
        return "\n  ".join([f"{self.what}. {self.killed}", *self.differences])


class History:
    """The releases of a project, and the path through all of them in databases of one kind."""

    def __init__(self, kind: str, directory: Path, prefix: str) -> None:
        self._directory = directory
        self._project = Project(directory / "project", "", "")
        self._names = (f"{prefix}_{number}" for number in count())
        #: By release, a database with its rows, and what it held before these came.
        self._databases: dict[int, Database] = {0: KINDS[kind](directory, next(self._names))}
        self._snapshots: dict[int, Snapshot] = {0: NOTHING}
        #: By release, the number of steps from the release before.
        self._steps: dict[int, int] = {}

    def walk(self) -> None:
        """Go the path, from an empty database on."""
        self._databases[0].create()
        for release in range(1, NEWEST + 1):
            releases.write(self._directory, release)
            here = self._databases[release] = self._databases[release - 1].copy(next(self._names))
            self._steps[release] = _steps(self._finish(here, release, *_RUN))
            self._snapshots[release] = here.snapshot()
            here.insert(releases.rows(release))

    def reports(self, seed: int, share: slice = slice(None)) -> Iterator[Report]:
        """Yield what becomes of each pair of releases, and of each gate; or of a share of them.

        Each time, a process is killed before a step that the seed determines.
        """
        tasks = [
            *(partial(self._upgrade, *pair, Random(f"{seed} {pair}")) for pair in _PAIRS),
            *(partial(self._upgrade, *pair, Random(f"{seed} {pair}"), True) for pair in _SKIPS),
            *(partial(self._go_back, new, Random(f"{seed} {new}")) for new in GATES),
        ]
        for task in tasks[share]:
            yield task()

    def end(self) -> None:
        """Leave no process and no database behind."""
        self._project.close()
        for database in self._databases.values():
            database.drop()

    def _upgrade(self, old: int, new: int, random: Random, skips: bool = False) -> Report:
        """Upgrade a database of a release to a later one.

        If that skips, the process that is killed is one of a release in between.
        """
        first = random.randint(old + 1, new - 1) if skips else new
        most = sum(self._steps[release] for release in range(old + 1, first + 1))
        here, killed, wrong = self._cross(self._databases[old], first, new, random, most)
        begun = self._snapshots[first] if skips else NOTHING
        start, path = self._snapshots[old], self._snapshots[new]
        wrong = wrong or differences(here.snapshot(), old, start, path, begun)
        here.drop()
        return Report(what=f"{old} by {first} to {new}", killed=killed, differences=wrong)

    def _go_back(self, new: int, random: Random) -> Report:
        """Undo the migration of a gate, have old processes write again, and go forward."""
        old = new - 1
        there = self._databases[old].copy(next(self._names))
        self._finish(there, new, *_RUN)
        self._finish(there, new, "migrate", "-v0", "store", GATES[new])
        there.delete(old)
        there.insert(releases.rows(old))
        here, killed, wrong = self._cross(there, new, new, random, self._steps[new])
        path = self._snapshots[new]
        wrong = wrong or differences(here.snapshot(), old, path, path, is_repeated=True)
        here.drop()
        there.drop()
        return Report(what=f"{new} back and forth", killed=killed, differences=wrong)

    def _cross(
        self, source: Database, first_release: int, release: int, random: Random, most: int
    ) -> tuple[Database, str, list[str]]:
        """Upgrade a copy by a process that is killed, and by one of some release to the end.

        Returns:
            The copy, the step before which the process was killed, and what went wrong.

        """
        while True:
            here = source.copy(next(self._names))
            first = self._start(here, first_release, *_RUN, kill=random.randint(1, most))
            if code := first.finish():
                break
            most = _steps(first)  # because it skips releases, it has fewer
            here.drop()
        *_, killed = first.output.splitlines()
        if code != _KILLED:
            return here, killed, [first.output]
        second = self._start(here, release, *_RUN)
        return here, killed, [] if second.finish() == 0 else [second.output]

    def _start(self, here: Database, release: int, *arguments: str, kill: int = 0) -> Process:
        environment = releases.environment(self._directory, release)
        return self._project.manage(
            *arguments, DATABASE_URL=here.url, TEST_KILL=f"{kill}", **environment
        )

    def _finish(self, here: Database, release: int, *arguments: str) -> Process:
        process = self._start(here, release, *arguments)
        assert process.finish() == 0, f"release {release}:\n{process.output}"
        return process


def share(kind: str, seed: int) -> slice:
    """Return a sixth of all, which is another one for each kind of database, and the next seed."""
    return slice((seed + 3 * [*KINDS].index(kind)) % 6, None, 6)


def _steps(process: Process) -> int:
    *_, found = re.findall(r"^steps=(\d+)$", process.output, re.MULTILINE)
    return int(found)
