"""Delete attempts that ended long ago.

The attempts that say how to go on stay: the last at each routine, what is held, and where batches
stopped.
"""

from argparse import Namespace

from django.core.management.base import CommandParser

from once.cli.options import add_database, databases, whole_number
from once.cli.output import TerminalCommand
from once.databases import database
from once.record import anchors, history
from once.routines.registry import Registry

USAGE = ""


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--older-than",
        type=whole_number("number of days", 0, 36500),
        default=90,
        metavar="DAYS",
        help="Delete attempts that ended more than so many days ago; 90 by default.",
    )
    add_database(parser, "Only in this database.")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    for using in databases(registry, options):
        deleted = 0
        with database(using).session():
            if history.is_installed(using):
                deleted = anchors.prune(using, options.older_than)
        if options.verbosity:
            command.stdout.write(f"  {using}: {deleted} old attempts deleted.")
