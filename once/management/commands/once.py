"""``manage.py once``: flags in, progress out."""

import contextlib
import getpass
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from django.core.management import (
    BaseCommand,
    CommandError,
    call_command,
    get_commands,
    load_command_class,
)
from django.core.management.base import CommandParser, SystemCheckError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS, connections

from once import doctor, migrate, process, readiness, registry, runner, status
from once.base import CALL, Routine
from once.exceptions import MigrationFailed, UnknownRoutine
from once.findings import Finding
from once.management import exits, interrupts, parsers, reporting
from once.models import Trigger
from once.registry import Registry
from once.results import Outcome, Result
from once.runner import Act
from once.status import RoutineState, Status
from once.text import whole

__all__ = ["Command"]


class Command(BaseCommand):
    """See ``manage.py once --help``."""

    help = "Runs initialization routines exactly once, and shows how they stand."
    #: Django's own checks of models ask a MySQL for its version, which may not answer yet.
    requires_system_checks = ("once",)

    def add_arguments(self, parser: CommandParser) -> None:
        parsers.add_subcommands(parser)

    def check(self, *args: Any, **kwargs: Any) -> None:
        """As Django's, but with an exit code of its own: no routine failed."""
        try:
            super().check(*args, **kwargs)
        except SystemCheckError as error:
            error.returncode = exits.USAGE
            raise

    def handle(self, *, subcommand: str, **options: Any) -> None:
        handlers: dict[str, Callable[..., None]] = {
            "run": self.run,
            "status": self.show,
            "wait": self.wait,
            "call": self.call,
            "reset": self.reset,
            "doctor": self.doctor,
        }
        with exits.translated(), interrupts.handled():
            handlers[subcommand](registry.load(), **options)

    def run(
        self,
        found: Registry,
        *,
        names: list[str],
        database: str | None,
        fake: bool,
        keep_going: bool,
        no_wait: bool,
        plan: bool,
        reason: str,
        timeout: float | None,
        as_json: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        """``once run``."""
        self._refuse_contradictions(names, fake, plan, reason, options["migrate"])
        routines = found.select(names) if names else found.recorded
        routines = [one for one in routines if database in (None, one.using)]
        if names and not routines:
            raise CommandError(
                f"None of these is in database {database!r}. Leave out --database, or name others.",
                returncode=exits.USAGE,
            )
        if not fake:
            routines = found.with_predecessors(routines)
        if plan:
            self._plan(found, routines, as_json=as_json)
            return
        begun = monotonic()
        with self._reporting(verbosity, as_json=as_json):
            if options["migrate"]:
                aliases = {one.using for one in routines} or {database or DEFAULT_DB_ALIAS}
                self._migrate(sorted(aliases), not no_wait, timeout, verbosity, as_json=as_json)
            if not fake:
                process.run(found.process)
            results = runner.run(
                routines,
                registry=found,
                trigger=Trigger.FAKE if fake else Trigger.COMMAND,
                act=Act.FAKE if fake else Act.RUN,
                wait=not no_wait,
                timeout=None if timeout is None else max(0.0, timeout - (monotonic() - begun)),
                keep_going=keep_going,
                user=_user() if fake else "",
                reason=reason,
            )
        if as_json:
            self._print_run(found, results)
        elif verbosity and all(result.outcome is Outcome.ALREADY_DONE for result in results):
            self.stdout.write("  No routines to run.")
        exits.after(results, no_wait=no_wait)

    def _refuse_contradictions(
        self, names: list[str], fake: bool, plan: bool, reason: str, migrate: bool
    ) -> None:
        if fake and not names:
            raise CommandError("--fake needs the NAME of each routine.", returncode=exits.USAGE)
        if plan and (fake or migrate):
            raise CommandError(
                "--plan runs nothing. Leave out --fake and --migrate, or --plan.",
                returncode=exits.USAGE,
            )
        if reason and not fake:
            raise CommandError(
                "--reason says why routines are recorded by --fake. Leave it out.",
                returncode=exits.USAGE,
            )

    def _plan(self, found: Registry, routines: list[Routine], *, as_json: bool) -> None:
        wanted = {routine.name for routine in routines}
        shown = [one for one in status.statuses(found) if one.name in wanted]
        shown = [one for one in shown if not one.is_settled]
        if as_json:
            self._print_json(status.to_json(shown))
            return
        halted = [one for one in shown if one.state in (RoutineState.HELD, RoutineState.BLOCKED)]
        runs = [one for one in shown if one not in halted]
        self.stdout.write(self.style.MIGRATE_HEADING("To be run, in this order:"))
        for line in reporting.lines(runs, self.style):
            self.stdout.write(f"  {line}")
        if not runs:
            self.stdout.write("  No routines to run.")
        if halted:
            self.stdout.write(self.style.MIGRATE_HEADING("Not to be run:"))
        for line in reporting.lines(halted, self.style):
            self.stdout.write(f"  {line}")

    def _migrate(
        self,
        aliases: list[str],
        wait: bool,
        timeout: float | None,
        verbosity: int,
        *,
        as_json: bool,
    ) -> None:
        out = self.stderr if as_json else self.stdout

        def command(using: str) -> None:
            call_command(
                "migrate",
                database=using,
                interactive=False,
                verbosity=verbosity,
                skip_checks=True,
                stdout=out._out,  # the stream itself: a wrapped wrapper ends lines twice
                stderr=self.stderr._out,
            )

        try:
            in_the_way = migrate.migrate(aliases, command, wait=wait, timeout=timeout)
        except MigrationFailed as error:
            self.stderr.write(whole(error.__cause__ or error))
            raise
        if in_the_way is not None:
            raise CommandError(
                f"Not everything is done: {in_the_way}. Run this without --no-wait to wait.",
                returncode=exits.NOT_DONE,
            )

    def show(
        self,
        found: Registry,
        *,
        names: list[str],
        check: bool,
        as_json: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        """``once status``."""
        shown = _chosen(found, names)
        if as_json:
            self._print_json(status.to_json(shown))
        else:
            for line in reporting.lines(shown, self.style, verbosity):
                self.stdout.write(line)
            if not shown:
                self.stdout.write("No routines. Declare them in the routines.py of an app.")
        undone = [one for one in shown if not one.is_settled]
        if check and undone:
            is_held = any(one.state is RoutineState.HELD for one in undone)
            is_blocked = any(one.state is RoutineState.BLOCKED for one in undone)
            names = [f"{one.name} ({one.state})" for one in undone]
            raise CommandError(
                f"Not done: {', '.join(names)}. Next: `manage.py once run"
                + (" --migrate`" if is_blocked else "`")
                + (", once a person has decided about what is held." if is_held else "."),
                returncode=exits.HELD if is_held else exits.NOT_DONE,
            )

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
        with self._reporting(verbosity):
            readiness.wait(found, routines, timeout=timeout)

    def call(
        self,
        found: Registry,
        *,
        key: str,
        command: str,
        arguments: list[str],
        atomic: bool,
        version: int,
        database: str,
        no_wait: bool,
        timeout: float | None,
        as_json: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        """``once call``."""
        _refuse_arguments(command, arguments)

        routine = Routine(
            function=lambda: call_command(command, *arguments),
            name=CALL + key,
            version=version,
            using=database,
            atomic=atomic,
        )
        with self._reporting(verbosity, as_json=as_json):
            results = runner.run(
                [routine],
                registry=Registry([routine]),
                trigger=Trigger.CALL,
                repeats=False,  # what it read from stdin would be gone
                wait=not no_wait,
                timeout=timeout,
            )
        if as_json:
            self._print_run(found, results)
        elif verbosity and results[0].outcome is Outcome.ALREADY_DONE:
            self.stdout.write(f"  {routine.name} is done already.")
        exits.after(results, no_wait=no_wait)

    def reset(
        self,
        found: Registry,
        *,
        names: list[str],
        database: str | None,
        interactive: bool,
        reason: str,
        verbosity: int,
        **options: Any,
    ) -> None:
        """``once reset``."""
        meant = _chosen(found, names, database)
        meant = [one for one in meant if one.kind != "process" or one.name in names]
        for name, count in Counter(one.name for one in meant).items():
            if count > 1:
                where = ", ".join(str(one.database) for one in meant if one.name == name)
                raise CommandError(
                    f"{name} is recorded in several databases: {where}. Name one by --database.",
                    returncode=exits.USAGE,
                )
        chosen = [one for one in meant if self._may_reset(one)]
        if not chosen:
            return
        if interactive:
            self._confirm_reset(chosen)
        by_name = {routine.name: routine for routine in found.recorded}
        results = []
        with self._reporting(verbosity):
            for one in chosen:
                # What nobody saw completed is not reset where it was completed meanwhile.
                is_done = one.state is RoutineState.COMPLETED
                results += runner.run(
                    [by_name.get(one.name) or _called(one)],
                    registry=found,
                    trigger=Trigger.RESET,
                    act=Act.RESET if is_done else Act.RETRY,
                    wait=False,
                    user=_user(),
                    reason=reason,
                )
        exits.after(results, no_wait=False)
        if verbosity:
            is_call = all(one.kind == "call" for one in chosen)
            again = "call it again by `manage.py once call`" if is_call else "`manage.py once run`"
            self.stdout.write(f"  Pending again. Next: {again}.")

    def doctor(
        self,
        found: Registry,
        *,
        database: str | None,
        as_json: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        """``once doctor``."""
        aliases = [database] if database else doctor.used(found)
        findings: list[Finding] = []
        for finding in doctor.examine(found, aliases):
            findings.append(finding)
            if not as_json:
                for line in reporting.finding_lines(finding, self.style, verbosity):
                    self.stdout.write(line)
                self.stdout.flush()
        if as_json:
            self._print_json(doctor.to_json(findings))
        exits.after_findings(findings)

    def _may_reset(self, one: Status) -> bool:
        if one.kind == "process":
            raise UnknownRoutine(
                f"{one.name} keeps no record (process scope): restart the process."
            )
        if one.state in (RoutineState.SUPERSEDED, RoutineState.UNKNOWN):
            raise CommandError(
                f"{one.name} is {one.state}: another release of the code knows more of it. Reset "
                "it with that release.",
                returncode=exits.USAGE,
            )
        if one.state is RoutineState.RUNNING:
            raise CommandError(
                f"{one.name} is run now on {one.host} (pid {one.pid}). End that process, or wait.",
                returncode=exits.NOT_DONE,
            )
        if one.state in (RoutineState.PENDING, RoutineState.BLOCKED):
            self.stdout.write(f"  {one.name} is {one.state}, so not done: nothing to reset.")
            return False
        return True

    def _confirm_reset(self, chosen: list[Status]) -> None:
        """Ask where effects may come to exist twice."""
        lost = [one for one in chosen if one.state in (RoutineState.COMPLETED, RoutineState.HELD)]
        if not lost:
            return
        if sys.stdin is None or not sys.stdin.isatty():
            raise CommandError(
                f"This has routines run again that ran: {', '.join(one.name for one in lost)}. "
                "Where there is no terminal to ask, confirm by --no-input.",
                returncode=exits.USAGE,
            )
        self.stdout.write("These ran, or may have run, and will run again:")
        for line in reporting.lines(lost, self.style):
            self.stdout.write(f"  {line}")
        try:
            answer = input("Type 'yes' to continue: ")
        except EOFError:
            answer = "no"
        if answer.strip().lower() != "yes":
            raise CommandError("Nothing was reset.", returncode=exits.NOT_DONE)

    @contextlib.contextmanager
    def _reporting(self, verbosity: int, *, as_json: bool = False) -> Iterator[None]:
        """A context that tells what goes on; with --json, stdout is for the one object."""
        out = self.stderr if as_json else self.stdout
        reporter = reporting.Reporter(out, self.stderr, self.style, verbosity)
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(reporter.connected())
            if as_json:
                contexts.enter_context(contextlib.redirect_stdout(sys.stderr))
            yield

    def _print_run(self, found: Registry, results: list[Result]) -> None:
        names = {result.routine.name for result in results}
        used = {result.routine.using for result in results}
        shown = [one for one in status.statuses(found, databases=used) if one.name in names]
        self._print_json(status.to_json(shown, results))

    def _print_json(self, value: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(value, indent=2, cls=DjangoJSONEncoder))


def _chosen(found: Registry, names: list[str], database: str | None = None) -> list[Status]:
    """The status of what the names mean, recorded or registered, in one database or in all."""
    registered = {routine.name: routine.using for routine in found.recorded}
    if database is not None:
        shown = status.statuses(found, databases={database})
    elif names and set(names) <= set(registered):
        # Another database may be out of reach.
        shown = status.statuses(found, databases={registered[name] for name in names})
    else:
        shown = status.statuses(found, databases=connections.settings)
    if not names:
        return shown
    # A command may be named by its key alone.
    known = {one.name: one.name.removeprefix(CALL) for one in shown} | found.labels
    meant = set[str]().union(*registry.match(names, known).values())
    chosen = [one for one in shown if one.name in meant]
    if database is not None and not chosen:
        raise CommandError(
            f"None of these is in database {database!r}. Leave out --database, or name others.",
            returncode=exits.USAGE,
        )
    return chosen


def _refuse_arguments(command: str, arguments: list[str]) -> None:
    """Refuse, before anything is recorded, a command that cannot be called so."""
    app = get_commands().get(command)
    if app is None:
        raise CommandError(
            f"Unknown command: {command!r}. `manage.py help` lists those that there are.",
            returncode=exits.USAGE,
        )
    target = app if isinstance(app, BaseCommand) else load_command_class(app, command)
    try:
        target.create_parser("manage.py", command).parse_args(arguments)
    except CommandError as error:
        message = str(error).removeprefix("Error: ")
        raise CommandError(f"{command}: {message}", returncode=exits.USAGE) from error


def _called(one: Status) -> Routine:
    """What stands for a command that ``once call`` ran."""
    return Routine(
        function=lambda: None,
        name=one.name,
        version=one.version or 1,
        using=one.database or DEFAULT_DB_ALIAS,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"
