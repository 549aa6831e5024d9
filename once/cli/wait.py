"""Run nothing; return when the routines are done, at once where one is held."""

from argparse import Namespace

from django.core.management.base import CommandParser

from once.cli.options import add_flags, add_names
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.engine import unapplied
from once.routines.registry import Registry
from once.status import readiness

HELP = "Run nothing; return when everything is done and migrated."
USAGE = "[NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, ". All that run at start-up by default.")
    add_flags(parser, "--timeout")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    routines = registry.select(options.names) if options.names else registry.startup
    aliases = () if options.names else unapplied.databases(registry)
    with reporting(command, options):
        readiness.wait(registry, routines, aliases, timeout=options.timeout)
