"""Puts the figures of the JSON file into the documentation: ``python -m benchmarks.page``."""

import re

from benchmarks.figures import Report
from benchmarks.stage import ROOT
from benchmarks.table import table

__all__ = ["FIGURES", "PAGE", "PICTURE", "section", "with_figures"]

FIGURES = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
PICTURE = ROOT / "docs" / "explanation" / "performance.svg"

_SECTION = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


def section(report: Report) -> str:
    """What the page says of a report."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    return f"\n{table(report)}\n\nMeasured with {versions}; on {machine}.\n\n"


def with_figures(page: str, report: Report) -> str:
    """The page with the figures of a report between its marks.

    Raises:
        ValueError: the marks are missing.

    """
    found, count = _SECTION.subn(lambda _: section(report), page)
    if count != 1:
        raise ValueError(f"{PAGE.name} needs the two marks between which figures go, once.")
    return found


if __name__ == "__main__":
    from benchmarks.plot import plot

    PAGE.write_text(with_figures(PAGE.read_text(), Report.read(FIGURES)))
    plot(FIGURES, PICTURE)
