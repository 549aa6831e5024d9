"""The benchmarks run, and the documentation says what they measured. Nothing is timed here."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contenders import TITLES
from benchmarks.figures import Report
from benchmarks.page import FIGURES, PAGE, PICTURE, with_figures
from tests.project import ROOT
from tests.servers import database_url, missing


@pytest.mark.long
def test_fast_measures_have_a_figure_for_each_contender(tmp_path: Path) -> None:
    if importlib.util.find_spec("pglock") is None:
        missing("django-pglock (pip install -e '.[benchmarks]')")
    if not database_url().startswith("postgresql"):
        pytest.skip("what is measured is PostgreSQL's alone")
    file = tmp_path / "figures.json"
    options = ["--rounds", "1", "--database", database_url(), "--json", str(file)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "loading", "running", "parts", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    report = Report.read(file)
    assert [row.measure for row in report.rows[:3]] == ["loading", "running", "parts"]
    for row in report.rows[:2]:
        for name in TITLES:
            figure = report.find(row, name)
            assert figure is not None, (row, name)
            assert len(figure.values) == 1
            assert figure.median > 0
    running = report.rows[1]
    floor = report.find(running, "floor")
    assert floor is not None
    assert floor.counts is not None
    # One SELECT; BEGIN, two INSERTs and COMMIT of each.
    assert (floor.counts.trips, floor.counts.statements) == (401, 401)
    assert floor.counts.connections == 0


def test_page_says_what_the_figures_say() -> None:
    page = PAGE.read_text()
    assert page == with_figures(page, Report.read(FIGURES)), "Run: python -m benchmarks.page"


def test_picture_is_of_these_figures() -> None:
    from benchmarks.plot import digest

    assert digest(FIGURES) in PICTURE.read_text(), "Run: python -m benchmarks.page"


def test_readme_says_what_the_entrypoint_costs() -> None:
    report = Report.read(FIGURES)
    row = next(row for row in report.rows if row.measure == "migrations")
    check, migrate, once = (report.find(row, name) for name in ("floor", "migrate", "once"))
    assert check
    assert migrate
    assert once
    said = (
        f"it takes {once.median / migrate.median:.1g} of the time of `migrate`, and "
        f"{once.median / check.median:.1g} of that of `migrate --check`"
    )
    assert said in " ".join((ROOT / "README.md").read_text().split())


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    report = Report.read(FIGURES)
    report.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == FIGURES.read_text()
