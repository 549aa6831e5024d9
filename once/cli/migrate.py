"""Migrating under the lock: ``once run --migrate``, and ``manage.py migrate`` if so set."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.core.checks.registry import registry as checks
from django.core.management import BaseCommand, CommandError, call_command
from django.core.management.commands.migrate import Command
from django.db import connections

from once.cli import exit_codes
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.databases import SUPPORTED, unapplied
from once.exceptions import MigrationFailed
from once.migrating import migrate as migrating
from once.routines.base import Routine
from once.routines.registry import Registry
from once.text import whole

_handle = Command.handle


def migrate(
    command: TerminalCommand, registry: Registry, routines: list[Routine], options: Namespace
) -> None:
    """Migrate ``default`` and the databases of routines, where that is due.

    Raises:
        CommandError: another process migrates, and is not to be waited for.

    """
    aliases = set(unapplied.databases(registry.databases))
    if options.database:
        aliases = {options.database, *(each.using for each in routines)}
    out = command.stderr if options.as_json else command.stdout

    def migrated(using: str) -> None:
        call_command(
            "migrate",
            database=using,
            interactive=False,
            verbosity=options.verbosity,
            skip_checks=options.skip_checks,
            stdout=out._out,  # the stream itself: a wrapped wrapper ends lines twice
            stderr=command.stderr._out,
        )

    with _telling(command), _checked():
        in_the_way = migrating.migrate(
            sorted(aliases), migrated, wait=not options.no_wait, timeout=options.timeout
        )
    if in_the_way is not None:
        raise CommandError(
            f"Not everything is done: {in_the_way}. Run this without --no-wait to wait.",
            returncode=exit_codes.NOT_DONE,
        )


@contextmanager
def _checked() -> Iterator[None]:
    """A context in which ``migrate`` leaves out the checks that this command made as it began."""
    every = checks.registered_checks
    checks.registered_checks = {each for each in every if "once" not in each.tags}
    try:
        yield
    finally:
        checks.registered_checks = every


def lock_command() -> None:
    """Have Django's ``migrate`` take the lock, and with it all commands that are made of it."""
    Command.handle = _locked  # type: ignore[method-assign, assignment]


def _locked(command: Command, *args: Any, **options: Any) -> None:
    """Wait for the lock and report that, then do what Django's command does."""
    go_on = partial(_handle, command, *args, **options)
    using = options["database"]
    only_tells = options.get("plan") or options.get("check_unapplied")
    if only_tells or connections[using].vendor not in SUPPORTED or migrating.is_migrating(using):
        go_on()
        return
    with exit_codes.translated(), reporting(command, Namespace(**options)), _telling(command):
        migrating.migrate([using], lambda _: go_on(), even_if_current=True)


@contextmanager
def _telling(command: BaseCommand) -> Iterator[None]:
    try:
        yield
    except MigrationFailed as error:
        if error.__cause__ is not None:
            command.stderr.write(whole(error.__cause__))
        raise
