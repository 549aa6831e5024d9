"""Tells people at a terminal, or who read a log, what a run does and how routines stand."""

import contextlib
import logging
import shutil
import textwrap
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from django.core.management.base import OutputWrapper
from django.core.management.color import Style
from django.db import DEFAULT_DB_ALIAS
from django.utils.timezone import localtime

from once import signals
from once.base import CALL, Routine
from once.findings import Finding, Level
from once.log import logger
from once.models import Attempt, State, Trigger
from once.results import Result
from once.status import RoutineState, Status
from once.text import last_line

__all__ = ["Reporter", "finding_lines", "lines"]

#: Seconds between two lines about progress, where there is no terminal.
_PROGRESS = 10

_VERBS = {Trigger.FAKE: "Recording", Trigger.RESET: "Resetting"}


class Reporter:
    """Prints what the signals tell, in the manner of ``migrate``."""

    def __init__(
        self, out: OutputWrapper, errors: OutputWrapper, style: Style, verbosity: int
    ) -> None:
        self.out = out
        self.errors = errors
        self.style = style
        self.verbosity = verbosity
        self._bar: Any = None

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """A context in which it listens."""
        receivers: dict[Any, Callable[..., None]] = {
            signals.attempt_started: self.started,
            signals.progressed: self.progressed,
            signals.attempt_finished: self.finished,
            signals.waiting: self.waiting,
            signals.waited: self.waited,
        }
        # Where logging is not configured, Python prints warnings to stderr: this prints instead.
        silence = logging.NullHandler()
        if not logger.hasHandlers():
            logger.addHandler(silence)
        for sent, receiver in receivers.items():
            sent.connect(receiver)
        try:
            yield
        finally:
            logger.removeHandler(silence)
            for sent, receiver in receivers.items():
                sent.disconnect(receiver)

    def started(self, sender: Routine, attempt: Attempt, **kwargs: Any) -> None:
        if self.verbosity:
            verb = _VERBS.get(Trigger(attempt.trigger), "Running")
            self.out.write(f"  {verb} {sender.name}...", ending="\n" if _is_long(sender) else "")
            self.out.flush()

    def progressed(
        self, sender: Routine, attempt: Attempt, seconds: float, lap: float, **kwargs: Any
    ) -> None:
        if not self.verbosity:
            return
        if self.out.isatty():
            self._draw(attempt)
        elif seconds // _PROGRESS > (seconds - lap) // _PROGRESS:
            rate = (attempt.processed - attempt.resumed) / seconds
            left = (attempt.total - attempt.processed) / rate if attempt.total and rate else None
            self.out.write(f"    {_progress(attempt.processed, attempt.total, rate, left)}")
            self.out.flush()

    def finished(self, sender: Routine, result: Result, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        state = result.attempt.state if result.attempt else None
        failed = state in (State.FAILED, State.LOST)
        if self.verbosity:
            word = self.style.SUCCESS("OK") if result.is_done else self.style.WARNING("INTERRUPTED")
            word = self.style.ERROR("FAILED") if failed else word
            about = f"  {sender.name}..." if _is_long(sender) else ""
            self.out.write(f"{about} {word} ({result.seconds:.3f}s)")
            if result.message and not failed:
                self.out.write(self.style.WARNING(f"    {result.message}"))
        if failed and result.error is not None:
            self.errors.write("".join(traceback.format_exception(result.error)))

    def waiting(self, sender: None, name: str, reason: str, waited: float, **kwargs: Any) -> None:
        if self.verbosity:
            self.out.write(f"  Waiting for {waited:.1f}s: {reason}")
            self.out.flush()

    def waited(self, sender: None, name: str, waited: float, **kwargs: Any) -> None:
        if self.verbosity:
            done = self.style.SUCCESS("done by another process")
            self.out.write(f"  Waited for {name}... {done} ({waited:.3f}s)")

    def _draw(self, attempt: Attempt) -> None:
        if self._bar is None:
            import tqdm

            size = shutil.get_terminal_size()

            progress_bar: Any = tqdm.tqdm
            self._bar = progress_bar(
                total=attempt.total,
                initial=attempt.resumed,
                desc=f"  {attempt.routine}",
                unit="",
                unit_scale=True,
                file=self.out._out,
                # A terminal to which nobody is attached has no size.
                ncols=size.columns,
                nrows=size.lines,
            )
            self._bar.update(attempt.processed - self._bar.n)
            self._bar.refresh()
        self._bar.update(attempt.processed - self._bar.n)


def lines(shown: list[Status], style: Style, verbosity: int = 1) -> Iterator[str]:
    """A line for each routine, and more for what a person should know of it."""
    width = max((len(one.name) for one in shown), default=0)
    for one in shown:
        mark = "X" if one.state is RoutineState.COMPLETED else " "
        version = f"v{one.version or one.recorded_version}"
        yield f"[{mark}] {one.name:<{width}}  {version}  {_painted(one, style)}{_details(one)}"
        if one.error:
            told = one.error.strip().splitlines() if verbosity > 1 else [last_line(one.error)]
            yield from (f"      {line}" for line in told)
        if one.message:
            yield f"      {one.message}"


def finding_lines(finding: Finding, style: Style, verbosity: int = 1) -> Iterator[str]:
    """A finding, fit for a terminal; at verbosity 0 only what is wrong."""
    if finding.level is Level.OK and not verbosity:
        return
    paint = {Level.WARNING: style.WARNING, Level.FAULT: style.ERROR}.get(
        finding.level, style.SUCCESS
    )
    # Padded before it is painted: colours have no width.
    level = paint(f"{finding.level:<7}")
    told = [finding.message, *([f"Next: {finding.hint}"] if finding.hint else [])]
    begin = f"{finding.database}  {level}  {finding.id:<10}  "
    indent = " " * (len(finding.database) + len("  warning  ") + 12)
    width = max(40, shutil.get_terminal_size().columns - len(indent))
    for text in told:
        for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
            yield f"{begin}{line}"
            begin = indent


def _is_long(routine: Routine) -> bool:
    """Whether something may be printed between its beginning and its end."""
    return routine.kind == "batched" or routine.name.startswith(CALL)


def _painted(one: Status, style: Style) -> str:
    paint = {
        RoutineState.COMPLETED: style.SUCCESS,
        RoutineState.FAILED: style.ERROR,
        RoutineState.HELD: style.ERROR,
        RoutineState.BLOCKED: style.ERROR,
        RoutineState.RUNNING: style.NOTICE,
    }.get(one.state)
    return paint(one.state.value) if paint else one.state.value


def _details(one: Status) -> str:
    parts = []
    if one.state is RoutineState.RUNNING and one.started_at:
        parts.append(f"since {_local(one.started_at)} on {one.host} (pid {one.pid})")
    elif one.started_at and one.state in (RoutineState.FAILED, RoutineState.HELD):
        parts.append(f"{_local(one.started_at)} on {one.host} (pid {one.pid})")
    elif one.completed_at and one.state is not RoutineState.PENDING:
        parts.append(_local(one.completed_at))
        if one.duration_seconds is not None:
            parts.append(f"in {one.duration_seconds:.3f}s on {one.host}")
    if one.kind == "call" and one.database != DEFAULT_DB_ALIAS:
        parts.append(f"in {one.database}")
    if one.kind in ("batched", "external"):
        parts.append(one.kind)
    if one.scope not in (None, "database", "process"):
        parts.append(f"per {one.scope}")
    if one.processed is not None and one.state is not RoutineState.COMPLETED:
        parts.append(_progress(one.processed, one.total, one.rate, one.seconds_left))
    if one.recorded_version and one.version and one.recorded_version != one.version:
        parts.append(f"(v{one.recorded_version} is recorded)")
    if one.attempts > 1:
        parts.append(f"({one.attempts} attempts)")
    if one.retry_at is not None:
        parts.append(f"(starting servers try again at {_local(one.retry_at)})")
    return "".join(f"  {part}" for part in parts)


def _progress(
    processed: int, total: int | None, rate: float | None, seconds_left: float | None
) -> str:
    parts = [f"{processed:,}"]
    if total is not None:
        share = f" ({processed / total:.0%})" if total else ""
        parts = [f"{processed:,} of {total:,}{share}"]
    if rate:
        parts.append(f"{rate:,.0f}/s")
    if seconds_left is not None:
        parts.append(f"{seconds_left:,.0f} s left")
    return ", ".join(parts)


def _local(moment: datetime) -> str:
    return f"{localtime(moment):%Y-%m-%d %H:%M:%S %Z}"
