"""Set the pace of batched routines, also while they run: from the next batch on, on any host.

`batch_size=200`, `rest=0.5` and `batch_seconds=2` stand for the options of the same name.
Without a value, as in `rest=`, what the code declares holds again. It ends with the version.
"""

from argparse import Namespace
from dataclasses import replace
from typing import Any

from django.core.management.base import CommandParser

from once.cli import exit_codes, pause
from once.cli.options import add_database, add_flags
from once.cli.output import TerminalCommand
from once.exceptions import RoutineError
from once.models import Wish
from once.record import wishes
from once.routines.registry import Registry

USAGE = "NAME [NAME ...] OPTION=VALUE [OPTION=VALUE ...]"


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "given",
        nargs="+",
        metavar="NAME|OPTION=VALUE",
        help=f"Names of routines as elsewhere, and the options to set: {', '.join(wishes.VALUES)}.",
    )
    add_database(parser, "Only routines that this database records.")
    add_flags(parser, "--reason")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    options.names = [each for each in options.given if "=" not in each]
    values = dict(map(_value, (each for each in options.given if "=" in each)))
    if not options.names or not values:
        raise exit_codes.misused(
            "Give the NAME of each routine, and what to set, as in "
            "`manage.py once set shop.fill_slugs batch_size=200 rest=0.5`."
        )
    listed = pause.meant(command, registry, options, Wish.Kind.SET)
    given: dict[str, Any] = {name: each for name, each in values.items() if each is not None}
    by_name = {each.name: each for each in registry.recorded}
    for status in listed:
        try:
            replace(by_name[status.name], **given)  # which checks them
        except RoutineError as error:
            raise exit_codes.misused(str(error)) from error
    pause.record(command, Wish.Kind.SET, listed, options, values)


def _value(text: str) -> tuple[str, float | None]:
    option, _, value = text.partition("=")
    if not option:
        raise exit_codes.misused(f"{text!r} sets nothing. Write OPTION=VALUE, without spaces.")
    if option not in wishes.VALUES:
        raise exit_codes.misused(f"{option} cannot be set. Set {' or '.join(wishes.VALUES)}.")
    if not value:
        return option, None
    kind = "whole" if option == "batch_size" else "decimal"
    try:
        return option, int(value) if option == "batch_size" else float(value)
    except ValueError:
        raise exit_codes.misused(f"{text}: {value!r} is no {kind} number.") from None
