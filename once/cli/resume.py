"""Resume routines that were paused: the next run or server start takes them up where they stand."""

from argparse import Namespace

from once.cli import pause
from once.cli.output import TerminalCommand
from once.models import Wish
from once.routines.registry import Registry

USAGE = pause.USAGE

add_arguments = pause.add_arguments


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    kind = Wish.Kind.RESUME
    pause.record(command, kind, pause.meant(command, registry, options, kind), options)
