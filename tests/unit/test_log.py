"""What the log says of a long routine, and how often."""

import logging

import pytest

from once import Routine, log
from once.models import Attempt


@pytest.mark.parametrize(
    ("seconds", "lap", "speaks"),
    [
        (29.9, 29.9, False),
        (30.1, 0.2, True),
        (45.0, 0.2, False),
        (60.0, 0.1, True),
        (59.9, 0.1, False),
        (200.0, 100.0, True),
    ],
)
def test_progress_is_logged_each_30_s(
    seconds: float, lap: float, speaks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "once")
    routine = Routine(function=lambda: None, name="shop.fill", version=2)
    attempt = Attempt(number=3, processed=40, total=100)
    log._progressed(routine, attempt=attempt, seconds=seconds, lap=lap)
    line = (
        "event=progress routine=shop.fill version=2 attempt=3 processed=40 total=100 "
        f"seconds={seconds:.1f}"
    )
    assert [record.getMessage() for record in caplog.records] == ([line] if speaks else [])
