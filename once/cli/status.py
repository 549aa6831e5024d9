"""Show how every routine stands: its state, progress, last error, next step."""

from argparse import Namespace
from collections.abc import Mapping, Sequence

from django.core.management import CommandError
from django.core.management.base import CommandParser
from django.db import Error
from django.utils.text import capfirst

from once.cli import exit_codes, output
from once.cli.choice import chosen
from once.cli.options import add_database, add_flags, add_names
from once.cli.output import TerminalCommand
from once.databases import unapplied
from once.routines.registry import Registry
from once.status import state
from once.status.state import RoutineState, Status
from once.text import one_line

USAGE = "[NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, ". All by default.")
    parser.add_argument(
        "--check",
        action="store_true",
        help="Exit with 3 where not everything is done and migrated, with 5 where a routine is "
        "held or paused.",
    )
    add_database(parser, "Only routines that this database records.")
    add_flags(parser, "--json")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    listed = chosen(registry, options)
    named = {status.database for status in listed if status.database and status.version}
    aliases = named if options.names else set(unapplied.databases(registry.databases))
    if options.database:
        aliases &= {options.database}
    unread: dict[str, Error] = {}
    lacking = unapplied.lacking(aliases, unread=unread)
    if options.as_json:
        output.print_json(command, state.to_json(listed, lacking=lacking, unread=unread))
    else:
        for line in output.lines(listed, command.style, options.verbosity, registry):
            command.stdout.write(line)
        if not listed:
            command.stdout.write("No routines. Declare them in the routines.py of an app.")
        warnings = [
            f"Database {using!r} cannot be read: {one_line(unread[using])}" for using in unread
        ]
        if lacking:
            behind = capfirst(unapplied.behind(lacking))
            warnings.insert(0, f"{behind}. Run `manage.py once run --migrate`.")
        for warning in warnings:
            command.stdout.write(command.style.WARNING(warning))
    if options.check:
        _check(listed, lacking, unread)


def _check(
    listed: Sequence[Status], lacking: Mapping[str, Sequence[str]], unread: Mapping[str, Error]
) -> None:
    """Return if everything is done.

    Raises:
        CommandError: something is not; the exit code says which.
        django.db.Error: a database cannot be read, and all that can be is done.

    """
    undone = [status for status in listed if not status.is_settled]
    if not undone and not lacking:
        for error in unread.values():
            raise error
        return
    is_held = any(status.state in (RoutineState.HELD, RoutineState.PAUSED) for status in undone)
    is_blocked = lacking or any(status.state is RoutineState.BLOCKED for status in undone)
    named = [f"{status.name} ({status.state})" for status in undone]
    behind = [unapplied.behind(lacking)] if lacking else []
    raise CommandError(
        f"Not done: {', '.join([*named, *behind])}. Next: `manage.py once run"
        + (" --migrate`" if is_blocked else "`")
        + (", once a person has decided about what is held or paused." if is_held else "."),
        returncode=exit_codes.HELD if is_held else exit_codes.NOT_DONE,
    )
