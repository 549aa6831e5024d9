"""The multiples of the floor as a picture: ``python -m benchmarks.plot JSON SVG``."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.contenders import TITLES
from benchmarks.figures import FLOOR, Report, Row

__all__ = ["digest", "plot"]

#: Colour and marker of each contender beside the floor.
_MARKS = {
    "pglock": ("#8430ce", "s"),
    "pglock_read": ("#1a73e8", "D"),
    "post_deploy": ("#e8710a", "^"),
    "migrate": ("#d01884", "v"),
    "once": ("#188038", "o"),
}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "once",  # the same figures make the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e8eaed",
}


def digest(source: Path) -> str:
    """What tells of which JSON file a picture is."""
    return f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"


def plot(source: Path, target: Path) -> None:
    """Draw each row that is compared by ratio, all contenders on one scale."""
    import matplotlib as mpl  # of an extra

    mpl.use("svg")
    from matplotlib import pyplot

    report = Report.read(source)
    rows = [row for row in report.rows if row.relation == "ratio"]
    with mpl.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.4 * len(rows)), layout="constrained")
        for name, (colour, marker) in _MARKS.items():
            ratios = [_ratio(report, row, name) for row in rows]
            title = TITLES[name].replace("`", "").strip("*")
            axes.plot(ratios, range(len(rows)), marker, color=colour, label=title, clip_on=False)
        axes.axvline(1, color="#5f6368", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(left=0.9)
        axes.set_xlabel(f"multiples of the {FLOOR}")
        axes.xaxis.set_major_formatter("{x:g} x")
        axes.set_yticks(range(len(rows)), [row.title for row in rows])
        axes.invert_yaxis()
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        figure.savefig(target, metadata={"Date": None, "Description": digest(source)})
        pyplot.close(figure)


def _ratio(report: Report, row: Row, name: str) -> float:
    figure = report.find(row, name)
    return (figure and report.compared(figure)) or float("nan")


if __name__ == "__main__":
    plot(Path(sys.argv[1]), Path(sys.argv[2]))
