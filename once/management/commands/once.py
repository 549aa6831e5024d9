"""``manage.py once``: picks the subcommand, each of which is a module of :mod:`once.cli`."""

import signal
from argparse import Namespace
from typing import Any

from django.core.management.base import CommandParser

from once.cli import (
    call,
    doctor,
    exit_codes,
    forget,
    history,
    items,
    pause,
    prune,
    reset,
    resume,
    run,
    status,
    wait,
    work,
)
from once.cli import set as set_pace
from once.cli.options import Subcommand, add_subcommands
from once.cli.output import TerminalCommand
from once.engine import shutdown
from once.routines import registry

SUBCOMMANDS: dict[str, Subcommand] = {
    "run": run,
    "work": work,
    "status": status,
    "history": history,
    "items": items,
    "wait": wait,
    "call": call,
    "pause": pause,
    "resume": resume,
    "set": set_pace,
    "reset": reset,
    "forget": forget,
    "prune": prune,
    "doctor": doctor,
}


class Command(TerminalCommand):
    """See ``manage.py once --help``."""

    help = "Runs initialization routines exactly once, and shows how they stand."
    #: Because Django's checks of models ask a MySQL for its version, which may not answer yet, they
    #: are left to ``migrate``.
    requires_system_checks = ("once",)

    def add_arguments(self, parser: CommandParser) -> None:
        add_subcommands(parser, SUBCOMMANDS)

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Check as Django does; a failed check exits with 2, because no routine failed."""
        with exit_codes.translated():
            super().check(*args, **kwargs)

    def handle(self, *, subcommand: str, **options: Any) -> None:
        with exit_codes.translated(), shutdown.handled(signal.SIGINT, signal.SIGTERM):
            SUBCOMMANDS[subcommand].handle(self, registry.load(), Namespace(**options))
