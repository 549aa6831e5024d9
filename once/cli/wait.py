"""Run nothing; return when routines and migrations are done, or at once if one is held."""

from argparse import Namespace

from django.core.management.base import CommandParser
from django.db import Error

from once.cli import output
from once.cli.options import add_database, add_flags, add_names, selected
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.databases import unapplied
from once.exceptions import Held, OnceError, TimedOut
from once.routines.registry import Registry
from once.status import readiness, state
from once.status.survey import statuses_of

USAGE = "[NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, ". All that run at start-up by default.")
    add_database(parser, "Only routines and migrations of this database.")
    add_flags(parser, "--timeout", "--json")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    routines = selected(registry, options, registry.startup)
    aliases = [] if options.names else unapplied.databases(registry.databases)
    aliases = [each for each in aliases if options.database in (None, each)]
    failure: OnceError | None = None
    with reporting(command, options):
        try:
            readiness.wait(registry, routines, aliases, timeout=options.timeout)
        except (Held, TimedOut) as error:
            failure = error
    if options.as_json:
        unread: dict[str, Error] = {}
        lacking = unapplied.lacking({*aliases, *(each.using for each in routines)}, unread=unread)
        listed = statuses_of(registry, routines)
        output.print_json(command, state.to_json(listed, lacking=lacking, unread=unread))
    if failure is not None:
        raise failure
