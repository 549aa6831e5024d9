"""Run any management command exactly once under a key, however many processes call it.

Its effects in the database and the record of them are one transaction. What is recorded is the key,
not the arguments; of a failure, its traceback.
"""

import os
import sys
from argparse import PARSER, ArgumentTypeError, Namespace
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from django.conf import ENVIRONMENT_VARIABLE
from django.core.management import (
    BaseCommand,
    CommandError,
    call_command,
    get_commands,
    load_command_class,
)
from django.core.management.base import CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

from once.cli import exit_codes, output
from once.cli.options import add_database, add_flags, whole_number
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.engine import executor
from once.engine.options import RunOptions
from once.exceptions import RoutineError
from once.models import Trigger
from once.routines.base import Routine
from once.routines.content import Content
from once.routines.names import CALL, NAME_LENGTH, TOMBSTONE
from once.routines.registry import Registry
from once.routines.scopes import Scope

USAGE = "KEY COMMAND [ARG ...]"

_OPTIONS = "Options of `once call`, such as --version, stand before KEY."


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "key",
        type=_key,
        metavar="KEY",
        help="The name by which it runs once: letters, digits and any of _ . : / @ + -. `once "
        "status` shows it as call:KEY.",
    )
    # One argument: of two, argparse would take the "--" between them away.
    parser.add_argument(
        "command",
        nargs=PARSER,
        metavar="COMMAND",
        help="Any management command, and its arguments: all that follows is for it.",
    )
    scopes = parser.add_mutually_exclusive_group()
    scopes.add_argument(
        "--per",
        choices=["release"],
        dest="scope",
        metavar="release",
        help="Once for each release, which ONCE_RELEASE names.",
    )
    scopes.add_argument(
        "--content",
        action="append",
        metavar="FILE",
        help="Once for each state of this file, or of the files that a quoted pattern such as "
        "'data/*.csv' finds. May be repeated.",
    )
    parser.add_argument(
        "--no-atomic",
        action="store_false",
        dest="atomic",
        help="Run it outside of a transaction: at least once, for effects outside of the database.",
    )
    parser.add_argument(
        "--version",
        type=whole_number("version", 1, TOMBSTONE - 1),
        default=1,
        metavar="N",
        help="A higher version runs again, once. Default: 1.",
    )
    add_database(
        parser,
        "The database of its effects and of their record. Default: default.",
        default=DEFAULT_DB_ALIAS,
    )
    add_flags(parser, "--no-wait", "--timeout", "--json")
    parser.set_defaults(own=frozenset(parser._option_string_actions))


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    name, *arguments = options.command
    parsed = _parse(name, arguments, options.own)
    if options.atomic:
        _refuse_other_database(name, parsed, options.database)
    scope: Scope = options.scope or "database"
    if options.content:
        scope = Content(tuple(options.content), directory=Path.cwd())
    routine = Routine(
        function=lambda: call_command(name, *arguments),
        name=CALL + options.key,
        version=options.version,
        using=options.database,
        scope=scope,
        atomic=options.atomic,
    )
    called = Registry([routine])
    with reporting(command, options):
        run_options = RunOptions(
            trigger=Trigger.CALL, wait=not options.no_wait, timeout=options.timeout
        )
        results = executor.run([routine], called, run_options)
    output.conclude(command, called, results, options, asked=[routine])


def _parse(name: str, arguments: list[str], own: frozenset[str]) -> Namespace:
    """Return the arguments of a command, or raise if it cannot be called so.

    Options that ``once call`` has of its own are named where they are misplaced.
    """
    app = get_commands().get(name)
    if app is None:
        raise exit_codes.misused(
            f"Unknown command: {name!r}. `manage.py help` lists those that there are."
        )
    target = app if isinstance(app, BaseCommand) else load_command_class(app, name)
    given = " ".join(arguments)
    parser = target.create_parser("manage.py", name)
    misplaced = own.intersection(argument.partition("=")[0] for argument in arguments)
    misplaced -= parser._option_string_actions.keys()
    # Because a command would else take --per for its own --period.
    parser.allow_abbrev = not misplaced
    try:
        with redirect_stdout(StringIO()):
            parsed = parser.parse_args(arguments)
    except CommandError as error:
        message = f"{name}: {str(error).removeprefix('Error: ')}"
        raise exit_codes.misused(f"{message}. {_OPTIONS}" if misplaced else message) from error
    except SystemExit:  # what prints a help or a version ends the program there, with 0
        raise exit_codes.misused(
            f"{name}: with {given!r} it would only print something, and not run. {_OPTIONS}"
        ) from None
    # Django applies these as a program starts, and ignores them where a command is called.
    is_in_use = {
        "--settings": parsed.settings in (None, os.environ.get(ENVIRONMENT_VARIABLE)),
        "--pythonpath": parsed.pythonpath in (None, *sys.path),
    }
    if ignored := [option for option, is_right in is_in_use.items() if not is_right]:
        raise exit_codes.misused(
            f"{name}: {ignored[0]} would have no effect in {given!r}. {_OPTIONS}"
        )
    return parsed


def _refuse_other_database(name: str, parsed: Namespace, using: str) -> None:
    """Raise if a command says that its effects are in another database than their record."""
    there = getattr(parsed, "database", None)
    if isinstance(there, str) and there in connections.settings and there != using:
        raise exit_codes.misused(
            f"{name}: its effects would be in database {there!r}, and the record of them in "
            f"{using!r}, so that a crash in between has it run twice. Pass --database {there} "
            "before KEY as well as after COMMAND. Or pass --no-atomic before KEY: at least once."
        )


def _key(text: str) -> str:
    if not text:
        raise ArgumentTypeError("'' is no KEY. Is a variable unset?")
    try:
        Routine(function=lambda: None, name=CALL + text)
    except RoutineError:
        raise ArgumentTypeError(
            f"{text!r} is no KEY. It may have {NAME_LENGTH - len(CALL)} letters, digits and any of "
            "_ . : / @ + -"
        ) from None
    return text
