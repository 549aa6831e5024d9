"""``manage.py once``: picks the subcommand, each of which is a module of :mod:`once.cli`."""

import signal
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

from django.core.management.base import CommandParser

from once.cli import exit_codes
from once.cli.options import Subcommand, add_subcommands
from once.cli.output import TerminalCommand
from once.engine import shutdown
from once.routines import registry

SUBCOMMANDS = (
    *("run", "work", "status", "history", "items", "wait", "call"),
    *("pause", "resume", "set", "reset", "forget", "prune", "doctor"),
)


class Command(TerminalCommand):
    """See ``manage.py once --help``."""

    help = "Runs initialization routines exactly once, and shows how they stand."
    #: Because Django's checks of models ask a MySQL for its version, which may not answer yet, they
    #: are left to ``migrate``.
    requires_system_checks = ("once",)
    #: The subcommands that the parser knows.
    subcommands: Sequence[str] = SUBCOMMANDS

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as Django does, but load no other subcommand than the one that comes first."""
        if {*argv[2:3]} & {*SUBCOMMANDS}:
            self.subcommands = argv[2:3]
        super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        add_subcommands(parser, {name: _load(name) for name in self.subcommands})

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Check as Django does; a failed check exits with 2, because no routine failed."""
        with exit_codes.translated():
            super().check(*args, **kwargs)

    def handle(self, *, subcommand: str, **options: Any) -> None:
        with exit_codes.translated(), shutdown.handled(signal.SIGINT, signal.SIGTERM):
            _load(subcommand).handle(self, registry.load(), Namespace(**options))


def _load(subcommand: str) -> Subcommand:
    return cast(Subcommand, import_module(f"once.cli.{subcommand}"))
