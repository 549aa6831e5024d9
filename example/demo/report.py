"""The tables that the demonstration prints."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Proof", "Row", "counted", "proofs", "routines"]


@dataclass(kw_only=True)
class Row:
    """What happened to one routine in one act."""

    name: str
    #: Ids of the processes that found it not done yet, and what they are.
    wanted_by: set[int] = field(default_factory=set)
    wanted_as: str
    #: How often its body did, by the effects, and how often it must.
    committed: int = 0
    expected: int = 1
    ran_by: str = ""
    #: Seconds, of those that wanted it and did not run it.
    waits: list[float] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether its body committed as often as it must."""
        return self.committed == self.expected

    @property
    def committed_of(self) -> str:
        """How often its body committed, for people."""
        is_one_of_one = self.committed == self.expected == 1
        return "1" if is_one_of_one else f"{self.committed:,} of {self.expected:,}"


@dataclass(frozen=True)
class Proof:
    """Something that must be so, and what was found."""

    witness: str
    what: str
    found: str
    expected: str

    @property
    def is_right(self) -> bool:
        """Whether it is so."""
        return self.found == self.expected


def routines(rows: Iterable[Row]) -> str:
    """A table with a line for each routine."""
    headings = ("routine", "wanted by", "committed", "run by", "the others waited")
    return _table(
        headings,
        (
            (
                row.name,
                counted(len(row.wanted_by), row.wanted_as),
                row.committed_of,
                row.ran_by or "nobody",
                _span(row.waits),
            )
            for row in rows
        ),
    )


def proofs(found: Iterable[Proof]) -> str:
    """A table with a line for each proof."""
    headings = ("witness", "of what", "found", "must be")
    return _table(headings, ((one.witness, one.what, one.found, one.expected) for one in found))


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def counted(number: int, noun: str) -> str:
    """A number of something, for people."""
    plural = "" if number == 1 else "es" if noun == "process" else "s"
    return f"{number} {noun}{plural}"


def _span(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    shortest, longest = f"{min(seconds):.2f}", f"{max(seconds):.2f}"
    return f"{shortest} s" if shortest == longest else f"{shortest} to {longest} s"
