"""Output of the command: fit for any terminal, or JSON for programs."""

import json
import os
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from textwrap import indent
from typing import Any
from unicodedata import east_asian_width

from django.core.management.base import BaseCommand, CommandError
from django.core.management.color import Style
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS

from once.cli import exit_codes
from once.results import Outcome, Reason, Result
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status import state, text
from once.status.state import RoutineState, Status
from once.text import escaped, inline

#: Columns for names at most; a longer name moves the rest of its line to the right.
_NAME = 32

#: Django's styles, each with the states of routines and attempts, and levels, that have it.
_STYLES = {
    "SUCCESS": ("completed", "succeeded", "ok"),
    "ERROR": ("failed", "held", "blocked", "lost", "fault"),
    "WARNING": ("paused", "warning"),
    "NOTICE": ("running",),
}

#: Routines, asked for by name, of which each is told since when it is done.
_ASKED = 5

#: Sequences of Django's styles, which neither hide nor move anything.
_COLOUR = re.compile(r"(\x1b\[(?:0|1|[34][0-7])(?:;[14])?m)")
_CELL = re.compile(f"{_COLOUR.pattern}|.")

#: A line of a traceback, as far as it is copied.
_PLACE = re.compile(r' *File "[^"]*", line \d+,?')


class Terminal:
    """A stream that escapes what a terminal would obey, or its encoding lacks.

    Because it cannot tell the command's colours from those of foreign text, callers escape that.
    At a terminal it folds lines; JSON and bars go to its ``unfolded``.
    """

    def __init__(self, stream: Any, *, folds: bool = True) -> None:
        self._stream = stream
        self._folds = folds and getattr(stream, "isatty", bool)()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        """Write a text, with what is unfit escaped as Python does."""
        bar = "\r" if text.startswith("\r") else ""  # with which a progress bar begins
        parts = _COLOUR.split(text.removeprefix(bar))
        parts[::2] = map(escaped, parts[::2])
        text = bar + "".join(parts)
        if self._folds:
            width = self._width()
            given = text.expandtabs().split("\n")
            text = "\n".join(piece for line in given for piece in folded(line, width))
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    @property
    def unfolded(self) -> "Terminal":
        return Terminal(self._stream, folds=False)

    def _width(self) -> int:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (AttributeError, OSError, ValueError):
            size = os.terminal_size((80, 24))
        return max(40, shutil.get_terminal_size(size).columns)


def folded(line: str, width: int) -> Iterator[str]:
    """Yield a line in pieces of that many columns at most, between words where there are any.

    The place that a line of a traceback names stays whole, because it is copied.
    """
    begin = " " * min(len(line) - len(line.lstrip(" ")) + 4, width // 2)
    place = _PLACE.match(line)
    whole = place.end() if place else 0
    while (end := max(whole, _fitting(line, width))) < len(line):
        least = max(whole, len(begin) + (width - len(begin)) // 3)
        # Because two spaces stand between details, a fold is rather there.
        spaces = [line.rfind("  ", least, end + 2), line.rfind(" ", least, end + 1)]
        at = next((space for space in spaces if space > 0), end)
        if piece := line[:at].rstrip(" "):
            yield piece
        line, whole = begin + line[at:].lstrip(" "), 0
    yield line


def _fitting(line: str, width: int) -> int:
    """Return how many characters of a line take that many columns."""
    for cell in _CELL.finditer(line):
        if len(cell[0]) == 1:
            width -= 1 + (east_asian_width(cell[0]) in "WF")
        if width < 0:
            return cell.start()
    return len(line)


class TerminalCommand(BaseCommand):
    """A command all of whose output is fit for a terminal."""

    def __init__(self, stdout: Any = None, stderr: Any = None, **options: Any) -> None:
        out: Any = Terminal(stdout or sys.stdout)
        errors: Any = Terminal(stderr or sys.stderr)
        super().__init__(out, errors, **options)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Execute the command, also on the streams of a caller."""
        given = {
            name: Terminal(options[name]) for name in ("stdout", "stderr") if options.get(name)
        }
        try:
            return super().execute(*args, **options | given)
        finally:
            self.stdout.flush()  # before Django prints an error of the command


def print_json(command: TerminalCommand, value: dict[str, Any]) -> None:
    out: Any = command.stdout
    out.unfolded.write(json.dumps(value, indent=2, cls=DjangoJSONEncoder) + "\n")


def heading(command: TerminalCommand, name: str, using: str) -> None:
    """Print the name of a routine, above what a database has of it."""
    where = "" if using == DEFAULT_DB_ALIAS else f"  in {using}"
    command.stdout.write(command.style.MIGRATE_HEADING(inline(name)) + where)


def lines(
    listed: Sequence[Status], style: Style, verbosity: int = 1, registry: Registry | None = None
) -> Iterator[str]:
    """Yield a line for each routine, and more for what a person should know of it.

    From verbosity 2 on, that includes what the code of a registry says.
    """
    names = [inline(status.name) for status in listed]
    width = min(_NAME, max(map(len, names), default=0))
    for name, status in zip(names, listed, strict=True):
        mark = "X" if status.state is RoutineState.COMPLETED else " "
        version = status.version or status.recorded_version
        parts = [f"[{mark}] {name:<{width}}"]
        parts += [f"v{version}"] if version else []  # a tombstone may be all that is recorded
        parts += [painted(style, status.state)]
        yield "  ".join([*parts, *map(inline, text.details(status))])
        facts = text.facts(status, registry) if registry and verbosity > 1 else []
        for label, fact in facts:
            yield f"      {f'{label}:':<13}{inline(fact)}"
        if status.error:
            yield of_error(status.error, verbosity)
        if status.message:
            yield f"      {inline(status.message)}"


def painted(style: Style, state: str, width: int = 0) -> str:
    """Return a state in its colour, if it has one."""
    padded = state.ljust(width)  # before it is painted, because colours have no width
    for name, states in _STYLES.items():
        if state in states:
            return str(getattr(style, name)(padded))
    return padded


def of_error(error: str, verbosity: int) -> str:
    """Return an error below a line about it; with its traceback only where that is asked for."""
    shown = error.strip() if verbosity > 1 else error.partition("\n")[0]
    return indent(escaped(shown), " " * 6)


def confirm(
    command: TerminalCommand, risk: str, heading: str, listed: Iterable[str], declined: str
) -> None:
    """Ask at a terminal; where there is none, raise with the risk that is to be confirmed."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise exit_codes.misused(f"{risk} Where there is no terminal to ask, confirm by --noinput.")
    command.stdout.write(heading)
    for line in listed:
        command.stdout.write(f"  {line}")
    try:
        answer = input("Type 'yes' to continue: ")
    except EOFError:
        answer = "no"
    if answer.strip().lower() != "yes":
        raise CommandError(declined, returncode=exit_codes.NOT_DONE)


def conclude(
    command: TerminalCommand,
    registry: Registry,
    results: list[Result],
    options: Namespace,
    *,
    asked: Sequence[Routine] = (),
) -> None:
    """Print what a run did, or that nothing was left to do, and end the command with its code.

    Of the routines that were asked for by name, say since when they are done.
    """
    if options.as_json:
        routines = [result.routine for result in results]
        print_json(command, state.to_json(_statuses(registry, routines), results))
    elif options.verbosity:
        nothing = [each for each in results if _asks_for_nothing(each)]
        is_done = len(nothing) == len(results)
        is_asked = is_done and 0 < len(asked) <= _ASKED
        for status in _statuses(registry, asked) if is_asked else []:
            command.stdout.write(f"  {inline(text.done_already(status))}")
        if is_done and not is_asked:
            command.stdout.write("  No routines to run.")
        for result in [] if is_asked else nothing:
            if result.message:
                command.stdout.write(f"  {result.routine.name}: {inline(result.message)}")
    exit_codes.after(results, no_wait=options.no_wait)


def _statuses(registry: Registry, routines: Sequence[Routine]) -> list[Status]:
    from once.status.survey import statuses_of  # and all that reads the record thoroughly

    return statuses_of(registry, routines)


def _asks_for_nothing(result: Result) -> bool:
    """True if there was nothing to do here, and nothing has gone wrong."""
    return result.outcome is Outcome.ALREADY_DONE or result.reason is Reason.OTHER_ROLE
