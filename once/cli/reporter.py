"""Prints what a run does while it does it, for a person or a log."""

import contextlib
import logging
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from django.core.management.base import BaseCommand, OutputWrapper
from django.core.management.color import Style

from once import signals
from once.log import logger
from once.models import Attempt, State, Trigger
from once.results import Outcome, Result
from once.routines.base import Routine
from once.routines.names import CALL
from once.status import text
from once.text import inline, trace

#: Seconds between two lines about progress, where there is no terminal.
_PROGRESS = 10

#: Seconds that a throttle is in the way before that is said.
_NOTICEABLE = 1.0

#: Events of the log that are printed here, or by the subcommand itself.
_TOLD = (
    *("started", "progress", "finished", "took_over", "suspected", "waiting", "waited"),
    *("forgotten", "throttled"),
)

_VERBS = {
    Trigger.FAKE: "Recording",
    Trigger.RESET: "Resetting",
    Trigger.RENAME: "Renaming",
    Trigger.ITEMS: "Trying failed items of",
}


@contextmanager
def reporting(command: BaseCommand, options: Namespace) -> Iterator[None]:
    """A context that prints what goes on; with --json, stdout is for the one object."""
    as_json = getattr(options, "as_json", False)
    out = command.stderr if as_json else command.stdout
    reporter = Reporter(out, command.stderr, command.style, options.verbosity)
    with reporter.connected(), contextlib.ExitStack() as contexts:
        if as_json:
            contexts.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


class Reporter:
    """Prints what the signals tell, in the manner of ``migrate``."""

    def __init__(
        self, out: OutputWrapper, errors: OutputWrapper, style: Style, verbosity: int
    ) -> None:
        #: Nowhere at verbosity 0.
        self.out = out if verbosity else OutputWrapper(StringIO())
        self.errors = errors
        self.style = style
        self._bar: Any = None
        #: The throttle that the last line was about.
        self._throttle = ""

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """A context in which it listens."""
        receivers: dict[Any, Callable[..., None]] = {
            signals.attempt_started: self.started,
            signals.progressed: self.progressed,
            signals.attempt_finished: self.finished,
            signals.attempt_lost: self.lost,
            signals.suspected: self.suspected,
            signals.throttled: self.throttled,
            signals.waiting: self.waiting,
            signals.waited: self.waited,
        }
        # Because a handler may log elsewhere than this prints, only at a terminal.
        handlers = _at_terminal() if self.out.isatty() else []
        # If logging is not configured, Python prints warnings to stderr. This prints most of them.
        rest = logging.StreamHandler(self.errors)
        rest.setLevel(logging.WARNING)
        rest.addFilter(self._is_untold)
        with contextlib.ExitStack() as end:
            if not logger.hasHandlers():
                logger.addHandler(rest)
                end.callback(logger.removeHandler, rest)
            for handler in handlers:
                handler.addFilter(self._is_untold)
                end.callback(handler.removeFilter, self._is_untold)
            for sent, receiver in receivers.items():
                sent.connect(receiver)
                end.callback(sent.disconnect, receiver)
            yield

    def started(self, sender: Routine, attempt: Attempt, **kwargs: Any) -> None:
        verb = _VERBS.get(Trigger(attempt.trigger), "Running")
        to = f" {attempt.reason}" if attempt.trigger == Trigger.RENAME else ""
        self.out.write(
            f"  {verb} {inline(sender.name + to)}...",
            ending="\n" if self._takes_two_lines(sender) else "",
        )
        self.out.flush()

    def progressed(
        self, sender: Routine, attempt: Attempt, seconds: float, lap: float, **kwargs: Any
    ) -> None:
        if self.out.isatty():
            self._draw(attempt)
        elif seconds // _PROGRESS > (seconds - lap) // _PROGRESS:
            from once.status.reading import progress  # and all that reads the record thoroughly

            self.out.write(f"    {text.progress(**progress(attempt, seconds))}")
            self.out.flush()

    def throttled(
        self, sender: Routine, attempt: Attempt, reason: str, waited: float, **kwargs: Any
    ) -> None:
        name = reason.partition(" says ")[0]  # whose seconds may differ each time
        if waited < _NOTICEABLE or name == self._throttle:
            return
        self._throttle = name
        if self._bar is not None:
            self._bar.clear()  # it is drawn again with the next batch
        self.out.write(f"    Waits: {inline(reason)}")
        self.out.flush()

    def finished(self, sender: Routine, result: Result, **kwargs: Any) -> None:
        self._throttle = ""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        state = result.attempt.state if result.attempt else None
        failed = state in (State.FAILED, State.LOST)
        is_found = result.attempt is not None and result.attempt.trigger == Trigger.FOUND
        good = str(Trigger.FOUND.label) if is_found else "OK"
        word = self.style.SUCCESS(good) if result.is_done else self.style.WARNING("INTERRUPTED")
        word = self.style.ERROR("FAILED") if failed else word
        about = f"  {inline(sender.name)}..." if self._takes_two_lines(sender) else ""
        # Without a call of the body its time would tell nothing.
        took = "" if result.outcome is Outcome.RECORDED else f" ({result.seconds:.3f}s)"
        self.out.write(f"{about} {word}{took}")
        if result.message and not failed:
            self.out.write(self.style.WARNING(f"    {inline(result.message)}"))
        self.out.flush()
        if failed and result.error is not None:
            self.errors.write(trace(result.error))

    def lost(self, sender: Routine, attempt: Attempt, **kwargs: Any) -> None:
        place = inline(f"{attempt.host} (pid {attempt.pid})")
        self.out.write(self.style.WARNING(f"  Took over from attempt {attempt.number} on {place}."))

    def suspected(self, sender: Routine, message: str, **kwargs: Any) -> None:
        self.out.write(self.style.WARNING(f"  {inline(message)}"))

    def waiting(self, sender: None, name: str, reason: str, waited: float, **kwargs: Any) -> None:
        self.out.write(f"  Waiting for {waited:.1f}s: {inline(reason)}")
        self.out.flush()

    def waited(self, sender: None, name: str, waited: float, message: str, **kwargs: Any) -> None:
        done = self.style.SUCCESS("done by another process")
        end = self.style.WARNING(inline(message)) if message else done
        self.out.write(f"  Waited for {name}... {end} ({waited:.3f}s)")

    def _is_untold(self, record: logging.LogRecord) -> bool:
        """True if a line of the log says what the command does not print itself."""
        return getattr(record, "once", {}).get("event") not in _TOLD

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
                file=self.out.unfolded,
                # A terminal that no person looks at has no size.
                ncols=size.columns,
                nrows=size.lines,
            )
            self._bar.update(attempt.processed - self._bar.n)
            self._bar.refresh()
        self._bar.update(attempt.processed - self._bar.n)

    def _takes_two_lines(self, routine: Routine) -> bool:
        """True if the beginning and the end of a routine are lines of their own.

        Because a body may print, and a log shows whole lines, only a terminal shows both in a line.
        """
        may_print = routine.kind == "batched" or routine.name.startswith(CALL)
        return may_print or not self.out.isatty()


def _at_terminal() -> list[logging.Handler]:
    """Return the handlers that would log to a terminal."""
    handlers = {*logger.handlers, *logging.root.handlers}
    streams = [each for each in handlers if isinstance(each, logging.StreamHandler)]
    return [
        each
        for each in streams
        if not getattr(each.stream, "closed", True) and getattr(each.stream, "isatty", bool)()
    ]
