"""The figures as a table in Markdown."""

from benchmarks.contenders import TITLES
from benchmarks.figures import FLOOR, Figure, Report, Row

__all__ = ["amount", "table"]


def table(report: Report) -> str:
    """One row for each row of the report, one column for each contender."""
    columns = [name for name in TITLES if name in report.contenders]
    head = ["", *(TITLES[name] for name in columns)]
    lines = [head, ["---"] * len(head)]
    lines += [[row.title, *(_cell(report, row, name) for name in columns)] for row in report.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(report: Report, row: Row, contender: str) -> str:
    figure = report.find(row, contender)
    if figure is None:
        return "-"
    shown = [_value(report, figure), figure.note]
    if (counts := figure.counts) is not None:
        shown.append(_number(counts.trips, "trip"))
        if counts.connections:
            shown.append(_number(counts.connections, "session"))
    return ", ".join(filter(None, shown))


def _value(report: Report, figure: Figure) -> str:
    compared = report.compared(figure)
    if figure.contender == FLOOR or compared is None:
        return amount(figure.median, figure.row.unit) if figure.values else "never"
    if figure.row.relation == "difference":
        return f"{'+' if compared >= 0 else ''}{amount(compared, figure.row.unit)}"
    return f"{compared:.3g} x" if compared < 1000 else f"{compared:,.0f} x"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def amount(value: float, unit: str) -> str:
    """A value for people, to three figures."""
    if unit == "s" and abs(value) < 1:
        value, unit = 1000 * value, "ms"
    shown = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{shown} {unit}".rstrip()
