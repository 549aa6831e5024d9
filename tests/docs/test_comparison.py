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
        (SMALL + "succeed", "once", "60", "with `django-once` all 60 succeed"),
        (SMALL + "runs of the body", "once", "1 ", "succeed and the body runs once"),
        (SMALL + "succeed", "pglock", "20", "With `pglock` 20 succeed and it runs once"),
        (SMALL + "succeed", "post-deploy", "19", "with django-post-deploy 19 succeed"),
        (SMALL + "runs of the body", "post-deploy", "6 ", "19 succeed and it runs 6 times"),
        (SMALL + "succeed", "migrate", "20", "with `migrate` 20 succeed"),
        (SMALL + "runs of the body", "migrate", "20", "20 succeed and it runs 20 times"),
        (POOLED + "succeed", "once", "200", "all succeed with `django-once`"),
        (POOLED + "succeed", "post-deploy", "91", "91 with django-post-deploy"),
        (POOLED + "runs of the body", "migrate", "15", "once, once, 15 and 33 times"),
        (POOLED + "runs of the body", "post-deploy", "33", "once, once, 15 and 33 times"),
        ("next body after SIGKILL", "pglock", "13.7 ms", "after 14 ms with `pglock`"),
        ("next body after SIGKILL", "once", "49.4 ms", "after 49 ms with `django-once`"),
        ("next body after SIGSTOP (L = 2 s)", "once", "1.86 s", "`django-once` takes 1.9 s"),
        ("next body after SIGSTOP (L = 2 s)", "pglock", "never", "`pglock` waits for ever"),
        ("next body after lost node (L = 2 s)", "once", "2.22 s", "lost, 2.2 s, and for ever"),
        (IDLE, "once", "1.53 x", "1.5 times the bare SELECT"),
        (IDLE, "pglock, one SELECT", "1.68 x", "with one SELECT first 1.7 times"),
        (IDLE, "post-deploy", "8.15 x", "django-post-deploy 8 times"),
        (IDLE, "migrate", "118 x", "`migrate` 118 times"),
        ("100 routines run, body is one INSERT", "once", "7.37 x", "run take 7.4 times"),
        ("100 routines run, body is one INSERT", "pglock", "2.1 x", "`pglock` 2.1 times"),
    ],
)
def test_figure(row: str, column: str, figure: str, sentence: str) -> None:
    measured = re.sub(r"\*", "", ROWS[row][COLUMNS.index(column)])
    assert measured.startswith(figure)
    assert sentence in COMPARISON
