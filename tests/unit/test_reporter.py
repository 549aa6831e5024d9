"""What a run prints about a long routine, where there is no terminal to draw a bar in."""

from io import StringIO

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import no_style

from once import Routine
from once.cli.reporter import Reporter
from once.models import Attempt

FILL = Routine(function=lambda batch: None, name="shop.fill", over=lambda: [1])


def printed(attempt: Attempt, *, seconds: float, lap: float = 1.0, verbosity: int = 1) -> str:
    """What is printed about a batch."""
    out = StringIO()
    reporter = Reporter(OutputWrapper(out), OutputWrapper(StringIO()), no_style(), verbosity)
    reporter.progressed(FILL, attempt=attempt, seconds=seconds, lap=lap)
    return out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "lap", "speaks"),
    [(9.9, 9.9, False), (10.0, 0.1, True), (11.0, 0.5, False), (95.0, 20.0, True)],
)
def test_progress_is_printed_each_10_s(seconds: float, lap: float, speaks: bool) -> None:
    shown = printed(Attempt(processed=50, total=100), seconds=seconds, lap=lap)
    assert bool(shown) is speaks


@pytest.mark.parametrize(
    ("attempt", "line"),
    [
        (Attempt(processed=40, total=100), "40 of 100 (40%), 4/s, 15s left"),
        (Attempt(processed=40, resumed=20, total=100), "40 of 100 (40%), 2/s, 30s left"),
        (Attempt(processed=12_340, total=None), "12,340, 1,234/s"),
        (Attempt(processed=20, resumed=20, total=100), "20 of 100 (20%)"),
    ],
    ids=["new", "resumed", "without a total", "nothing yet"],
)
def test_progress_tells_how_far_and_how_fast_and_how_long(attempt: Attempt, line: str) -> None:
    assert printed(attempt, seconds=10.0) == f"    {line}\n"


def test_progress_is_silent_at_verbosity_0() -> None:
    assert printed(Attempt(processed=40, total=100), seconds=10.0, verbosity=0) == ""
