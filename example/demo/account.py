"""Who wanted what in one act, who did it, and who waited: the rows of its table."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from example.demo import observations, truth
from example.demo.partner import Partner
from example.demo.processes import Process
from example.demo.report import Row, counted
from example.demo.stage import Stage

__all__ = ["Account"]


class Account:
    """Filled by what processes logged, by what they left in the database, and by the partner."""

    def __init__(self, release: int, noun: str) -> None:
        """Begin with what the release must do.

        Args:
            release: which.
            noun: what the processes that load Django are called.

        """
        self.release = release
        self.noun = noun
        self.rows: dict[str, Row] = {}
        for name in (*truth.EFFECTS[release], truth.ANNOUNCEMENT):
            self._row(name)
        #: The child that a process is, or that started it, by its id.
        self.children: dict[int, Process] = {}

    def note_processes(self, children: Sequence[Process]) -> None:
        """Take in the logs of processes, and of those that they started."""
        for child in children:
            for pid, events in observations.by_process([child]).items():
                self.children[pid] = child
                about = [one for one in events if one.name in ("started", "waited")]
                for routine in dict.fromkeys(one.routine for one in about):
                    row = self._row(routine)
                    row.wanted_by.add(pid)
                    seconds = observations.wait(events, routine)
                    if seconds is not None:
                        row.waits.append(seconds)
        self._note_in_memory(children)

    def note_migrations(self, stage: Stage, children: Sequence[Process]) -> None:
        """Take in what the entrypoints of replicas said of ``migrate``."""
        applied = {child: observations.applied_migrations(child) for child in children}
        ((recorded,),) = stage.database.rows("SELECT count(*) FROM django_migrations")
        row = self.rows.pop("migrations", None) or Row(name="", wanted_as=self.noun)
        row.name = f"migrate ({recorded} migrations)"
        row.expected = recorded
        row.committed = sum(map(len, applied.values()))
        row.ran_by = ", ".join(child.name for child, names in applied.items() if names)
        row.wanted_by |= {child.pid for child, names in applied.items() if names}
        self.rows = {row.name: row, **self.rows}

    def note_effects(self, stage: Stage) -> None:
        """Take in what the bodies of this release left behind."""
        must = truth.EFFECTS[self.release]
        pids: dict[str, Counter[int]] = {name: Counter() for name in must}
        for routine, pid in stage.database.rows(
            f"SELECT routine, pid FROM geography_effect WHERE release = {self.release} ORDER BY id"
        ):
            pids.setdefault(routine, Counter())[pid] += 1
        for routine, times in pids.items():
            row = self._row(routine)
            row.committed = times.total()
            row.expected = must.get(routine, 0)
            row.ran_by = self._who(times)
        self._note_announcement(stage.partner)

    def _note_announcement(self, partner: Partner) -> None:
        """Count what the partner did, since the effect is there."""
        row = self._row(truth.ANNOUNCEMENT)
        row.committed = list(partner.releases.values()).count(self.release)
        row.ran_by = self._who(
            observations.pids(set(self.children.values()), "started", truth.ANNOUNCEMENT)
        )

    def _note_in_memory(self, children: Iterable[Process]) -> None:
        """Count the processes that ran, once, a body with no row to leave: it logs a line."""
        for pid, events in observations.by_process(children).items():
            times = Counter(event.routine for event in events if event.name == "indexed")
            for routine, count in times.items():
                row = self._row(routine)
                row.wanted_by.add(pid)
                row.committed += count == 1
                row.expected = len(self.children)
                row.ran_by = "each for itself"

    def _who(self, pids: Collection[int]) -> str:
        names: list[str] = []
        workers: Counter[str] = Counter()
        for pid in pids:
            child = self.children.get(pid)
            if child is None:
                names.append(f"an unknown process, {pid}")
            elif child.pid == pid:
                names.append(child.name)
            else:
                workers[child.name] += 1
        names += [f"{counted(number, 'worker')} of {name}" for name, number in workers.items()]
        return ", ".join(names) if len(names) < 3 else counted(len(pids), "process")

    def _row(self, name: str) -> Row:
        return self.rows.setdefault(name, Row(name=name, wanted_as=self.noun))
