"""The table that the demonstration prints."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Row", "table"]

HEADINGS = ("routine", "wanted by", "committed", "run by", "the others waited")


@dataclass(kw_only=True)
class Row:
    """What happened to one routine."""

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


def table(rows: Iterable[Row]) -> str:
    """One line for each routine."""
    lines = [HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    wanted = len(row.wanted_by)
    plural = "" if wanted == 1 else "es" if row.wanted_as == "process" else "s"
    return (
        row.name,
        f"{wanted} {row.wanted_as}{plural}",
        f"{row.committed} of {row.expected}" if row.expected > 1 else str(row.committed),
        row.ran_by or "nobody",
        _span(row.waits),
    )


def _span(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    shortest, longest = f"{min(seconds):.2f}", f"{max(seconds):.2f}"
    return f"{shortest} s" if shortest == longest else f"{shortest} to {longest} s"
