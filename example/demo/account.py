"""Who wanted what, who did it, who waited: rows for the table, and what is wrong with them."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import pycountry

from example.demo import observations
from example.demo.databases import Database
from example.demo.processes import Process
from example.demo.report import Row

__all__ = ["Account"]


class Account:
    """Filled by what the processes logged and printed, verified by what is in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rows: dict[str, Row] = {}
        self.problems: list[str] = []
        #: What a process that loaded Django is called, by its id.
        self.names: dict[int, str] = {}

    def note_replicas(self, children: Sequence[Process]) -> None:
        """Take in the output of entrypoints that ended well."""
        self.names |= {child.pid: child.name for child in children}
        self._note_migrations(children)
        for child in children:
            for one in json.loads(child.stdout.read_text())["routines"]:
                row = self._row(one["name"], "replica")
                if one["outcome"] != "already_done":
                    row.wanted_by.add(child.pid)
                if one["outcome"] == "waited":
                    row.waits.append(_wait(child, one["name"]) or 0.0)
        self._note_in_memory(children)

    def note_workers(self, masters: Sequence[Process]) -> None:
        """Take in the logs of gunicorn masters whose workers booted."""
        for master in masters:
            for pid, events in observations.by_process([master]).items():
                self.names[pid] = f"{master.name}, worker {pid}"
                about = [one for one in events if one.name in ("started", "waited")]
                for routine in dict.fromkeys(one.routine for one in about):
                    row = self._row(routine, "worker")
                    row.wanted_by.add(pid)
                    seconds = observations.wait(events, routine)
                    if seconds is not None:
                        row.waits.append(seconds)
        self._note_in_memory(masters)

    def verify(self, recorded: Collection[str]) -> None:
        """Compare effects and data with what must be there.

        Args:
            recorded: names of the routines that run once in a database.

        """
        effects: dict[str, list[int]] = {name: [] for name in recorded}
        for routine, pid in self.database.rows("SELECT routine, pid FROM geography_effect"):
            effects.setdefault(routine, []).append(pid)
        for routine, pids in effects.items():
            row = self._row(routine, "process")
            row.committed = len(pids)
            who = sorted({self.names.get(pid, f"pid {pid}") for pid in pids})
            row.ran_by = ", ".join(who) if len(who) < 3 else f"{len(who)} processes"
        self.problems += [
            f"{row.name}: committed {row.committed} times, not {row.expected}."
            for row in self.rows.values()
            if row.committed != row.expected
        ]
        self._verify_data()

    def _verify_data(self) -> None:
        countries = {country.alpha_2 for country in pycountry.countries}
        issued = [one for one in pycountry.currencies if one.alpha_3[:2] in countries]
        for what, rows, expected in (
            ("countries", "geography_country", len(countries)),
            ("currencies", "geography_currency", len(pycountry.currencies)),
            ("issuers", "geography_currency WHERE issuer_id = substr(code, 1, 2)", len(issued)),
            ("subdivisions", "geography_subdivision", len(pycountry.subdivisions)),
        ):
            ((found,),) = self.database.rows(f"SELECT count(*) FROM {rows}")
            if found != expected:
                self.problems.append(f"There are {found} {what}, not {expected}.")

    def _note_migrations(self, children: Sequence[Process]) -> None:
        applied = {child: observations.applied_migrations(child) for child in children}
        ((recorded,),) = self.database.rows("SELECT count(*) FROM django_migrations")
        row = self._row(f"migrate ({recorded} migrations)", "replica")
        row.expected = recorded
        row.committed = sum(map(len, applied.values()))
        row.ran_by = ", ".join(child.name for child, names in applied.items() if names)
        for child in children:
            seconds = _wait(child, "migrations")
            if seconds is not None:
                row.waits.append(seconds)
            if seconds is not None or applied[child]:
                row.wanted_by.add(child.pid)

    def _note_in_memory(self, children: Iterable[Process]) -> None:
        """Count the bodies that have no row to leave: they log a line."""
        ran: Counter[tuple[int, str]] = Counter(
            (pid, event.routine)
            for pid, events in observations.by_process(children).items()
            for event in events
            if event.name == "indexed"
        )
        for (pid, routine), times in ran.items():
            row = self._row(routine, "process")
            row.wanted_by.add(pid)
            row.committed += times
            row.expected = len(self.names)
            row.ran_by = "each for itself"
            if times > 1:
                self.problems.append(f"{routine} ran {times} times in the process {pid}.")

    def _row(self, name: str, wanted_as: str) -> Row:
        return self.rows.setdefault(name, Row(name=name, wanted_as=wanted_as))


def _wait(child: Process, name: str) -> float | None:
    events = observations.by_process([child]).get(child.pid, [])
    return observations.wait(events, name)
