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
        (SMALL + "succeed", "post-deploy", "19", "| django-post-deploy | 19 succeed"),
        (SMALL + "runs of the body", "post-deploy", "6 ", "19 succeed, 6 runs of the body"),
        (SMALL + "succeed", "migrate", "20", "| `migrate` | 20 succeed"),
        (SMALL + "runs of the body", "migrate", "20", "20 succeed, 20 runs of the body"),
        (POOLED + "succeed", "once", "200", "1 run of the body | 200 succeed, 1 run of the body"),
        (POOLED + "succeed", "post-deploy", "91", "6 runs of the body | 91 succeed"),
        (POOLED + "runs of the body", "migrate", "15", "200 succeed, 15 runs of the body"),
        (POOLED + "runs of the body", "post-deploy", "33", "91 succeed, 33 runs of the body"),
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
        (IDLE, "once", "1.53 x", "1.5 times the bare SELECT"),
        (IDLE, "pglock, one SELECT", "1.68 x", "with one SELECT first takes 1.7 times"),
        (IDLE, "post-deploy", "8.15 x", "django-post-deploy 8 times"),
        (IDLE, "migrate", "118 x", "`migrate` 118 times"),
        ("100 routines run, body is one INSERT", "once", "7.37 x", "run take 7.4 times"),
        ("100 routines run, body is one INSERT", "pglock", "2.1 x", "with `pglock` 2.1 times"),
    ],
)
def test_figure(row: str, column: str, figure: str, sentence: str) -> None:
    measured = re.sub(r"\*", "", ROWS[row][COLUMNS.index(column)])
    assert measured.startswith(figure)
    assert sentence in COMPARISON
