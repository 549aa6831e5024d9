"""Output of the command: fit for any terminal, or JSON for programs."""

import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand
from django.core.management.color import Style
from django.core.serializers.json import DjangoJSONEncoder

from once.cli import exit_codes
from once.results import Outcome, Result
from once.routines.registry import Registry
from once.status import state, text
from once.status.state import RoutineState, Status
from once.status.survey import statuses_of

__all__ = ["Terminal", "TerminalCommand", "conclude", "lines", "print_json"]

#: Characters that a terminal obeys or shows out of order, and half characters. New lines and tabs
#: stay. So does a carriage return at the start, because a progress bar begins with it.
_UNFIT = re.compile("(?!\\A\r)[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: Sequences of Django's styles, which neither hide nor move anything.
_COLOUR = re.compile(r"(\x1b\[(?:0|1|[34][0-7])(?:;[14])?m)")


class Terminal:
    """A stream that writes what a terminal would obey, or its encoding lacks, as an escape."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        """Write a text, with what is unfit escaped as Python does."""
        parts = _COLOUR.split(text)
        parts[::2] = [_UNFIT.sub(_escaped, part) for part in parts[::2]]
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return self._stream.write(
            "".join(parts).encode(encoding, "backslashreplace").decode(encoding)
        )


def _escaped(unfit: re.Match[str]) -> str:
    return unfit[0].encode("unicode_escape").decode()


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
        return super().execute(*args, **options | given)


def print_json(command: TerminalCommand, value: dict[str, Any]) -> None:
    command.stdout.write(json.dumps(value, indent=2, cls=DjangoJSONEncoder))


def lines(listed: Sequence[Status], style: Style, verbosity: int = 1) -> Iterator[str]:
    """Yield a line for each routine, and more for what a person should know of it."""
    paints = {
        RoutineState.COMPLETED: style.SUCCESS,
        RoutineState.FAILED: style.ERROR,
        RoutineState.HELD: style.ERROR,
        RoutineState.BLOCKED: style.ERROR,
        RoutineState.RUNNING: style.NOTICE,
    }
    width = max((len(status.name) for status in listed), default=0)
    for status in listed:
        mark = "X" if status.state is RoutineState.COMPLETED else " "
        version = f"v{status.version or status.recorded_version}"
        painted = paints.get(status.state, str)(status.state.value)
        line = "  ".join(
            [f"[{mark}] {status.name:<{width}}", version, painted, *text.details(status)]
        )
        yield line.replace("\n", "\\n")  # of a host, which is whatever a process says
        if status.error:
            error = status.error.strip().splitlines() if verbosity > 1 else [status.error_line]
            yield from (f"      {line}" for line in error)
        if status.message:
            yield f"      {status.message}".replace("\n", "\\n")


def conclude(
    command: TerminalCommand,
    registry: Registry,
    results: list[Result],
    options: Namespace,
    *,
    nothing: str,
) -> None:
    """Print what a run did, or that nothing was left to do, and end the command with its code."""
    if options.as_json:
        routines = [result.routine for result in results]
        print_json(command, state.to_json(statuses_of(registry, routines), results))
    elif options.verbosity and all(each.outcome is Outcome.ALREADY_DONE for each in results):
        command.stdout.write(f"  {nothing}")
    exit_codes.after(results, no_wait=options.no_wait)
