"""``manage.py once``: flags in, progress out."""

import contextlib
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from django.core.management import (
    BaseCommand,
    CommandError,
    call_command,
)
from django.core.management.base import CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS

from once import doctor, migrate, process, readiness, registry, runner, status
from once.base import Routine
from once.exceptions import MigrationFailed
from once.findings import Finding
from once.management import calling, exits, interrupts, parsers, reporting, resetting
from once.management.selection import chosen
from once.models import Attempt, Trigger
from once.registry import Registry
from once.results import Outcome, Result
from once.runner import Act
from once.status import RoutineState
from once.text import storable, whole

__all__ = ["Command"]


class Command(BaseCommand):
    """See ``manage.py once --help``."""

    help = "Runs initialization routines exactly once, and shows how they stand."
    #: Django's own checks of models ask a MySQL for its version, which may not answer yet: they are
    #: for ``migrate``.
    requires_system_checks = ("once",)

    def add_arguments(self, parser: CommandParser) -> None:
        parsers.add_subcommands(parser)

    def check(self, *args: Any, **kwargs: Any) -> None:
        """As Django's, but with an exit code of its own: no routine failed."""
        with exits.translated():
            super().check(*args, **kwargs)

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
                self._migrate(
                    sorted(aliases),
                    not no_wait,
                    timeout,
                    verbosity,
                    as_json=as_json,
                    skip_checks=options["skip_checks"],
                )
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
        skip_checks: bool,
    ) -> None:
        out = self.stderr if as_json else self.stdout

        def command(using: str) -> None:
            call_command(
                "migrate",
                database=using,
                interactive=False,
                verbosity=verbosity,
                skip_checks=skip_checks,
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
        shown = chosen(found, names)
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
        routine = calling.routine(
            key, command, arguments, version=version, using=database, atomic=atomic
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
        meant = chosen(found, names, database)
        resets = resetting.resettable(meant, names, self.stdout)
        if not resets:
            return
        if interactive:
            resetting.confirm(resets, self.stdout, self.style)
        with self._reporting(verbosity):
            results = resetting.reset(found, resets, user=_user(), reason=reason)
        exits.after(results, no_wait=False)
        if verbosity:
            is_call = all(one.kind == "call" for one in resets)
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


def _user() -> str:
    try:
        name = storable(getpass.getuser())  # which the environment may say
    except (KeyError, OSError):  # a container's user may have no name
        name = f"uid {os.getuid()}"
    return name[: Attempt._meta.get_field("user").max_length]
