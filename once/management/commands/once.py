"""``manage.py once``: flags in, progress out."""

import contextlib
import json
import logging
import signal
import threading
import traceback
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from datetime import datetime
from time import monotonic
from types import FrameType
from typing import Any, NoReturn

from django.core.management import call_command
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
)
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS, Error
from django.utils.timezone import is_aware, localtime

from once import migrate, process, registry, runner, signals, status
from once.base import Routine
from once.exceptions import DatabaseUnavailable, OnceError, TimedOut, UnknownRoutine
from once.log import logger
from once.models import Attempt, State
from once.registry import Registry
from once.results import Outcome, Result
from once.status import RoutineState, Status
from once.text import one_line

__all__ = ["Command"]

FAILED = 1
USAGE = 2
NOT_DONE = 3
TIMED_OUT = 4
INTERRUPTED = 130
TERMINATED = 143

TRIGGER = "command"


class Command(BaseCommand):
    """See ``manage.py once --help``."""

    help = "Runs initialization routines exactly once, and shows how they stand."

    def add_arguments(self, parser: CommandParser) -> None:
        subcommands = parser.add_subparsers(
            dest="subcommand",
            required=True,
            metavar="{run,status,wait}",
            parser_class=_Subparser,
        )
        run = subcommands.add_parser(
            "run",
            help="Run what is pending, and wait for what others run.",
            description="Run what is pending, each routine exactly once, and wait for what other "
            "processes run. Exit code: 0 done, 1 a routine failed, 3 not everything is done, "
            "4 timed out.",
        )
        run.add_argument(
            "names",
            nargs="*",
            metavar="NAME",
            help="Routines to run, with those that they come after; all by default.",
        )
        run.add_argument(
            "--migrate",
            action="store_true",
            help="First run `migrate`, under a lock of its own, on every database of a routine.",
        )
        run.add_argument(
            "--fake",
            action="store_true",
            help="Record the named routines as done without running them.",
        )
        run.add_argument(
            "--no-wait",
            action="store_true",
            help="Leave out what another process runs (exit code 3).",
        )
        self._add_timeout(run)
        self._add_json(run)

        show = subcommands.add_parser(
            "status",
            help="Show how every routine stands.",
            description="Show how every routine stands. Exit code: 0, or with --check 3 where not "
            "everything is done.",
        )
        show.add_argument("names", nargs="*", metavar="NAME", help="Routines to show.")
        show.add_argument(
            "--check", action="store_true", help="Exit with 3 where not everything is done."
        )
        self._add_json(show)

        wait = subcommands.add_parser(
            "wait",
            help="Run nothing; return when everything is done.",
            description="Run nothing; return when the routines are done: the named ones, or all "
            "that run at start-up. Exit code: 0 done, 4 timed out.",
        )
        wait.add_argument("names", nargs="*", metavar="NAME", help="Routines to wait for.")
        self._add_timeout(wait)

    def handle(self, *, subcommand: str, **options: Any) -> None:
        handlers: dict[str, Callable[..., None]] = {
            "run": self.run,
            "status": self.show,
            "wait": self.wait,
        }
        try:
            with _sigterm_raises():
                handlers[subcommand](registry.load(), **options)
        except _Terminated:
            raise CommandError("Ended by SIGTERM.", returncode=TERMINATED) from None
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=INTERRUPTED) from None
        except UnknownRoutine as error:
            raise CommandError(str(error), returncode=USAGE) from error
        except (TimedOut, DatabaseUnavailable) as error:
            raise CommandError(str(error), returncode=TIMED_OUT) from error
        except OnceError as error:
            raise CommandError(str(error), returncode=FAILED) from error
        except Error as error:
            message = f"A database cannot be used: {one_line(error)}"
            raise CommandError(message, returncode=FAILED) from error

    def run(
        self,
        found: Registry,
        *,
        names: list[str],
        fake: bool,
        no_wait: bool,
        timeout: float | None,
        verbosity: int,
        as_json: bool,
        **options: Any,
    ) -> None:
        """``once run``."""
        if fake and not names:
            raise CommandError("--fake needs the NAME of each routine.", returncode=USAGE)
        routines = found.select(names) if names else found.recorded
        begun = monotonic()
        progress = self.stderr if as_json else self.stdout
        with _Reporter(self, progress, verbosity).connected():
            if options["migrate"]:
                self._migrate(found, timeout, progress, verbosity)
            process.run(found.process)
            results = runner.run(
                routines if fake else found.with_predecessors(routines),
                registry=found,
                trigger="fake" if fake else TRIGGER,
                wait=not no_wait,
                timeout=None if timeout is None else max(0.0, timeout - (monotonic() - begun)),
                fake=fake,
            )
        if as_json:
            self._print_run(found, results)
        elif verbosity and all(result.outcome is Outcome.ALREADY_DONE for result in results):
            self.stdout.write("  No routines to run.")
        self._exit_after(results, no_wait=no_wait)

    def _migrate(
        self, found: Registry, timeout: float | None, progress: Any, verbosity: int
    ) -> None:
        def command(using: str) -> None:
            call_command(
                "migrate",
                database=using,
                interactive=False,
                verbosity=verbosity,
                skip_checks=True,
                stdout=progress._out,  # the stream itself: a wrapped wrapper ends lines twice
                stderr=self.stderr._out,
            )

        aliases = sorted({routine.using for routine in found.recorded} or {DEFAULT_DB_ALIAS})
        migrate.migrate(aliases, command, timeout=timeout)

    def _print_run(self, found: Registry, results: list[Result]) -> None:
        outcomes = {result.routine.name: str(result.outcome) for result in results}
        shown = [one for one in status.statuses(found) if one.name in outcomes]
        self._print_json(status.to_json(shown, outcomes))

    def _exit_after(self, results: list[Result], *, no_wait: bool) -> None:
        for result in results:
            if result.outcome is Outcome.FAILED:
                message = f"{result.routine.name} failed. {result.message}"
                raise CommandError(message, returncode=FAILED) from result.error
        for result in results:
            if result.timed_out:
                raise CommandError(result.message, returncode=TIMED_OUT)
        undone = [result for result in results if not result.is_done]
        if undone:
            hint = ["Run this without --no-wait to wait for others."] if no_wait else []
            lines = [f"  {result.routine.name}: {result.message}" for result in undone]
            raise CommandError(
                "\n".join(["Not everything is done.", *lines, *hint]), returncode=NOT_DONE
            )

    def show(
        self, found: Registry, *, names: list[str], check: bool, as_json: bool, **options: Any
    ) -> None:
        """``once status``."""
        shown = status.statuses(found)
        if names:
            known = {one.name for one in shown}
            found.select(name for name in names if name not in known)
            shown = [one for one in shown if one.name in names]
        if as_json:
            self._print_json(status.to_json(shown))
        else:
            self._print_table(shown)
        undone = [one.name for one in shown if not one.is_settled]
        if check and undone:
            raise CommandError(f"Not done: {', '.join(undone)}.", returncode=NOT_DONE)

    def _print_table(self, shown: list[Status]) -> None:
        if not shown:
            self.stdout.write("No routines. Declare them in the routines.py of an app.")
            return
        width = max(len(one.name) for one in shown)
        for one in shown:
            mark = "X" if one.state is RoutineState.COMPLETED else " "
            version = one.version or one.recorded_version
            line = f"[{mark}] {one.name:<{width}}  v{version}  {self._painted(one)}"
            self.stdout.write(line + _details(one))
            if one.error:
                last_line = one.error.strip().splitlines()[-1]
                self.stdout.write(f"      {last_line}")

    def _painted(self, one: Status) -> str:
        paint = {
            RoutineState.COMPLETED: self.style.SUCCESS,
            RoutineState.FAILED: self.style.ERROR,
            RoutineState.BLOCKED: self.style.ERROR,
            RoutineState.RUNNING: self.style.NOTICE,
        }.get(one.state)
        return paint(one.state.value) if paint else one.state.value

    def wait(
        self,
        found: Registry,
        *,
        names: list[str],
        timeout: float | None,
        verbosity: int,
        **options: Any,
    ) -> None:
        """``once wait``."""
        routines = found.select(names) if names else found.startup
        with _Reporter(self, self.stdout, verbosity).connected():
            status.wait(found, routines, timeout=timeout)

    def _print_json(self, value: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(value, indent=2, cls=DjangoJSONEncoder))

    def _add_timeout(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--timeout",
            type=seconds,
            metavar="SECONDS",
            help="Give up waiting after this long (exit code 4). No limit by default.",
        )

    def _add_json(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--json",
            action="store_true",
            dest="as_json",
            help="Print one JSON object, and nothing else.",
        )


class _Subparser(CommandParser):
    """A parser that takes Django's own options as well."""

    def __init__(self, **kwargs: Any) -> None:
        options = BaseCommand().create_parser("", "")
        for action in options._actions:
            action.default = SUPPRESS  # where not given here, what stands before it counts
        super().__init__(
            parents=[options], add_help=False, formatter_class=DjangoHelpFormatter, **kwargs
        )


class _Reporter:
    """Prints what the signals tell, in the manner of ``migrate``."""

    def __init__(self, command: Command, out: Any, verbosity: int) -> None:
        self.style = command.style
        self.out = out
        self.verbosity = verbosity
        self.stderr = command.stderr

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        receivers: dict[Any, Callable[..., None]] = {
            signals.attempt_started: self.started,
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
            verb = "Recording" if attempt.trigger == "fake" else "Running"
            self.out.write(f"  {verb} {sender.name}...", ending="")
            self.out.flush()

    def finished(self, sender: Routine, result: Result, **kwargs: Any) -> None:
        state = result.attempt.state if result.attempt else None
        failed = state in (State.FAILED, State.LOST)
        if self.verbosity:
            word = self.style.SUCCESS("OK") if result.is_done else self.style.WARNING("INTERRUPTED")
            word = self.style.ERROR("FAILED") if failed else word
            self.out.write(f" {word} ({result.seconds:.3f}s)")
            if result.message and not failed:
                self.out.write(self.style.WARNING(f"    {result.message}"))
        if failed and result.error is not None:
            self.stderr.write("".join(traceback.format_exception(result.error)))

    def waiting(self, sender: None, name: str, reason: str, waited: float, **kwargs: Any) -> None:
        if self.verbosity:
            self.out.write(f"  Waiting for {waited:.1f}s: {reason}")
            self.out.flush()

    def waited(self, sender: None, name: str, waited: float, **kwargs: Any) -> None:
        if self.verbosity:
            done = self.style.SUCCESS("done by another process")
            self.out.write(f"  Waited for {name}... {done} ({waited:.3f}s)")


def _details(one: Status) -> str:
    parts = []
    if one.state is RoutineState.RUNNING and one.started_at:
        parts.append(f"since {_local(one.started_at)} on {one.host} (pid {one.pid})")
    elif one.completed_at:
        parts.append(_local(one.completed_at))
        if one.duration_seconds is not None:
            parts.append(f"in {one.duration_seconds:.3f}s on {one.host}")
    if one.recorded_version and one.version and one.recorded_version != one.version:
        parts.append(f"(v{one.recorded_version} is recorded)")
    if one.attempts > 1:
        parts.append(f"({one.attempts} attempts)")
    return "".join(f"  {part}" for part in parts)


def _local(moment: datetime) -> str:
    shown = localtime(moment) if is_aware(moment) else moment
    return f"{shown:%Y-%m-%d %H:%M:%S %Z}".rstrip()


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Have SIGTERM end a run like Ctrl-C does: the body rolls back and the history says so."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends at once
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value
