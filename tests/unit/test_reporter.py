"""What a run prints about a long routine, where there is no terminal to draw a bar in."""

import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import no_style

from once import Routine, log
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


class Terminal(StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[StringIO]]:
    """What a terminal and a file show of the log."""
    streams: list[StringIO] = [Terminal(), StringIO()]
    handlers = [logging.StreamHandler(stream) for stream in streams]
    for handler in handlers:
        log.logger.addHandler(handler)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # a test closes a stream
    yield streams
    for handler in handlers:
        log.logger.removeHandler(handler)


def test_terminal_shows_an_event_once_and_a_file_all_of_them(handled: list[StringIO]) -> None:
    terminal, file = handled
    out = OutputWrapper(Terminal())
    with Reporter(out, out, no_style(), 1).connected():
        with Reporter(out, out, no_style(), 1).connected():  # in a body that calls the command
            pass
        log.tell(logging.WARNING, "waiting")
        log.tell(logging.WARNING, "readiness_unknown")
    log.tell(logging.WARNING, "waited")
    assert terminal.getvalue() == "event=readiness_unknown\nevent=waited\n"
    assert file.getvalue() == "event=waiting\nevent=readiness_unknown\nevent=waited\n"


def test_warning_that_the_command_does_not_print_is_logged_without_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log.logger, "hasHandlers", lambda: False)
    before = [*log.logger.handlers]
    out = StringIO()
    with Reporter(OutputWrapper(StringIO()), OutputWrapper(out), no_style(), 1).connected():
        log.tell(logging.WARNING, "gate", message="It takes no `apps`.")
        log.tell(logging.WARNING, "waiting")
        log.tell(logging.INFO, "readiness_unknown")
    assert out.getvalue() == 'event=gate message="It takes no `apps`."\n'
    assert log.logger.handlers == before


def test_attempt_that_was_taken_over_is_told_though_nothing_is_logged() -> None:
    out = StringIO()
    reporter = Reporter(OutputWrapper(out), OutputWrapper(out), no_style(), 1)
    reporter.lost(FILL, attempt=Attempt(number=3, host="web-1\x1b[31m", pid=7))
    assert out.getvalue() == "  Took over from attempt 3 on web-1\\x1b[31m (pid 7).\n"


@pytest.mark.parametrize("stream", [StringIO, Terminal])
def test_line_of_a_log_is_whole_before_a_body_prints(stream: type[StringIO]) -> None:
    out = stream()
    routine = Routine(function=lambda: None, name="shop.seed")
    reporter = Reporter(OutputWrapper(out), OutputWrapper(out), no_style(), 1)
    reporter.started(routine, attempt=Attempt(trigger="command"))
    assert out.getvalue() == "  Running shop.seed..." + ("\n" if stream is StringIO else "")


def test_terminal_shows_the_log_where_the_command_prints_elsewhere(handled: list[StringIO]) -> None:
    handled[1].close()
    for out, verbosity in ((StringIO(), 1), (Terminal(), 0)):
        with Reporter(OutputWrapper(out), OutputWrapper(out), no_style(), verbosity).connected():
            log.tell(logging.WARNING, "waiting")
    assert handled[0].getvalue() == "event=waiting\n" * 2
