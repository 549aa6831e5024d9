"""What is measured, as values: figures, a report of them, and the JSON file that keeps it."""

import json
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

__all__ = ["FLOOR", "Counts", "Figure", "Report", "Row", "Unit"]

#: The contender that does what cannot be left out, and nothing else.
FLOOR = "floor"

Unit = Literal["s", "MiB", "runs", "processes", "connections", ""]

_SCHEMA = 1
#: A list of numbers, which is to be one line of the file.
_NUMBERS = re.compile(r"\[[^\[\]{}\"]+\]")
_PACKAGES = ("Django", "django-once", "django-pglock", "django-post-deploy", "psycopg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a server saw of one call, from all sessions."""

    #: Messages that it answered, each of them a round trip.
    trips: int
    #: SQL statements in them.
    statements: int
    #: Sessions that were opened.
    connections: int

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            trips=self.trips - other.trips,
            statements=self.statements - other.statements,
            connections=self.connections - other.connections,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What all contenders are measured at: a row of the table."""

    #: The measure that it belongs to.
    measure: str
    title: str
    unit: Unit = "s"
    #: How contenders are compared with the floor: "-" for where there is none.
    relation: Literal["ratio", "difference", "-"] = "ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one contender showed in one row."""

    row: Row
    contender: str
    #: One for each round, in the unit of the row; none where it never ended.
    values: tuple[float, ...]
    counts: Counts | None = None
    #: What else there is to say, in a few words.
    note: str = ""

    @property
    def median(self) -> float:
        """The middle value; NaN where there is none."""
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles, between which half of the values lie."""
        if len(self.values) < 2:
            return self.median, self.median
        lower, _, upper = statistics.quantiles(self.values, n=4, method="inclusive")
        return lower, upper


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All figures of one run, and where they were measured."""

    figures: tuple[Figure, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls, figures: Iterable[Figure], server: str) -> Self:
        """A report of this machine."""
        rounded = (
            replace(figure, values=tuple(map(_rounded, figure.values))) for figure in figures
        )
        return cls(figures=tuple(rounded), versions=_versions(server), machine=_machine())

    @property
    def rows(self) -> list[Row]:
        """The rows in order, each once."""
        return list(dict.fromkeys(figure.row for figure in self.figures))

    @property
    def contenders(self) -> list[str]:
        """The contenders in order, each once."""
        return list(dict.fromkeys(figure.contender for figure in self.figures))

    def find(self, row: Row, contender: str) -> Figure | None:
        """What a contender showed in a row, where it took part."""
        for figure in self.figures:
            if (figure.row, figure.contender) == (row, contender):
                return figure
        return None

    def compared(self, figure: Figure) -> float | None:
        """A figure beside that of the floor in the same run, by the row's relation.

        A ratio is one of medians. A difference is the median of those in each round, since what it
        tells is smaller than what else the machine does from round to round.
        """
        floor = self.find(figure.row, FLOOR)
        if floor is None or not floor.values or not figure.values or figure.row.relation == "-":
            return None
        if figure.row.relation == "difference":
            pairs = zip(figure.values, floor.values, strict=True)
            return statistics.median(value - least for value, least in pairs)
        return figure.median / floor.median

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        rows = [
            {
                **asdict(row),
                "figures": [_as_json(self, figure) for figure in self.figures if figure.row == row],
            }
            for row in self.rows
        ]
        whole = {
            "schema": _SCHEMA,
            "versions": dict(self.versions),
            "machine": dict(self.machine),
            "rows": rows,
        }
        text = json.dumps(whole, indent=1)
        path.write_text(_NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """What :meth:`write` wrote.

        Raises:
            ValueError: the file is of another schema.

        """
        whole = json.loads(path.read_text())
        if whole["schema"] != _SCHEMA:
            raise ValueError(f"{path} has schema {whole['schema']}, not {_SCHEMA}: measure again.")
        figures = []
        for each in whole["rows"]:
            found = each.pop("figures")
            figures += [_from_json(Row(**each), figure) for figure in found]
        return cls(figures=tuple(figures), versions=whole["versions"], machine=whole["machine"])


def _as_json(report: Report, figure: Figure) -> dict[str, Any]:
    compared = report.compared(figure)
    # The median and what it is compared with are there for other readers; they follow from values.
    return {
        "contender": figure.contender,
        "median": _rounded(figure.median) if figure.values else None,
        "compared": None if compared is None else _rounded(compared),
        "values": figure.values,
        "counts": asdict(figure.counts) if figure.counts else None,
        "note": figure.note,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _from_json(row: Row, found: dict[str, Any]) -> Figure:
    counts = found["counts"]
    return Figure(
        row=row,
        contender=found["contender"],
        values=tuple(found["values"]),
        counts=Counts(**counts) if counts else None,
        note=found["note"],
    )


def _versions(server: str) -> dict[str, str]:
    found = {"Python": platform.python_version(), "server": server}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
