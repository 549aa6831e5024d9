"""The comparison with the peers says what was measured."""

import re

import pytest

from tests.project import ROOT

EXPLANATION = ROOT / "docs" / "explanation"
COMPARISON = " ".join((EXPLANATION / "comparison.md").read_text().split())
ROWS = {
    cells[0]: cells[1:]
    for line in (EXPLANATION / "performance.md").read_text().splitlines()
    if line.startswith("| ")
    for cells in [line.strip("| ").split(" | ")]
}
COLUMNS = ("floor", "pglock", "pglock, one SELECT", "post-deploy", "migrate", "once")
SMALL = "60 processes, 20 connections, a routine of 3 s: "
POOLED = "200 processes, PgBouncer with a pool of 15, a routine of 3 s: "
IDLE = "nothing to do, 10 routines, in process"


@pytest.mark.parametrize(
    ("row", "column", "figure", "sentence"),
    [
        (SMALL + "succeed", "once", "60", "| `django-once` | 60 succeed"),
        (
            SMALL + "runs of the body",
            "once",
            "1 ",
            "| `django-once` | 60 succeed, 1 run of the body | 200",
        ),
        (SMALL + "succeed", "pglock", "20", "| `pglock` | 20 succeed, 1 run of the body"),
        (SMALL + "succeed", "post-deploy", "18", "| django-post-deploy | 18 succeed"),
        (SMALL + "runs of the body", "post-deploy", "18", "18 succeed, 18 runs of the body"),
        (SMALL + "succeed", "migrate", "20", "| `migrate` | 20 succeed"),
        (SMALL + "runs of the body", "migrate", "20", "20 succeed, 20 runs of the body"),
        (POOLED + "succeed", "once", "200", "1 run of the body | 200 succeed, 1 run of the body"),
        (POOLED + "succeed", "post-deploy", "159", "18 runs of the body | 159 succeed"),
        (POOLED + "runs of the body", "migrate", "15", "200 succeed, 15 runs of the body"),
        (POOLED + "runs of the body", "post-deploy", "18", "159 succeed, 18 runs of the body"),
        (
            "next body after SIGKILL",
            "pglock",
            "13.7 ms",
            "| 49 ms | 14 ms, because its waiters block |",
        ),
        ("next body after SIGKILL", "once", "49.4 ms", "| is killed | 49 ms |"),
        ("next body after SIGSTOP (L = 2 s)", "once", "1.86 s", "| is frozen | 1.9 s |"),
        ("next body after SIGSTOP (L = 2 s)", "pglock", "never", "| is frozen | 1.9 s | never |"),
        (
            "next body after lost node (L = 2 s)",
            "once",
            "2.22 s",
            "| is on a node that is lost | 2.2 s | never |",
        ),
        (IDLE, "once", "2.01 x", "2 times the bare SELECT"),
        (IDLE, "pglock, one SELECT", "1.66 x", "with one SELECT first takes 1.7 times"),
        (IDLE, "post-deploy", "7.53 x", "django-post-deploy 7.5 times"),
        (IDLE, "migrate", "114 x", "`migrate` 114 times"),
        ("100 routines run, body is one INSERT", "once", "7.07 x", "run take 7.1 times"),
        ("100 routines run, body is one INSERT", "pglock", "2.3 x", "with `pglock` 2.3 times"),
    ],
)
def test_figure(row: str, column: str, figure: str, sentence: str) -> None:
    measured = re.sub(r"\*", "", ROWS[row][COLUMNS.index(column)])
    assert measured.startswith(figure)
    assert sentence in COMPARISON
