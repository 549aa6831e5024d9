"""The subcommands of ``manage.py once``, the flags that several of them take, and their meaning."""

import getpass
import os
import re
from argparse import SUPPRESS, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter
from django.db import DEFAULT_DB_ALIAS, connections

from once.cli import exit_codes
from once.cli.output import TerminalCommand
from once.routines.base import Routine
from once.routines.registry import Registry
from once.text import escaped

EXIT_CODES = (
    "Exit code: 0 done; 1 a routine failed; 2 usage; 3 not everything is done; 4 gave up waiting; "
    "5 held or paused, a person decides; 130 and 143 after SIGINT and SIGTERM."
)


class Subcommand(Protocol):
    """A module of this package that bears its name.

    Its docstring describes it, and the first line of that is its line in the list of subcommands.
    """

    __doc__: str | None
    #: The positional arguments.
    USAGE: str

    def add_arguments(self, parser: CommandParser) -> None:
        """Give a parser the flags of the subcommand."""

    def handle(self, command: TerminalCommand, registry: Registry, options: Namespace) -> None:
        """Do what the flags say."""


def add_subcommands(parser: CommandParser, subcommands: Mapping[str, Subcommand]) -> None:
    """Give a parser the subcommands of ``once``, which take Django's own options as well."""
    parser.epilog = EXIT_CODES
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    parents = [_django_options()]
    for name, subcommand in subcommands.items():
        subparser = subparsers.add_parser(
            name,
            help=(subcommand.__doc__ or "").partition("\n")[0],
            description=subcommand.__doc__,
            usage=f"%(prog)s [options] {subcommand.USAGE}".rstrip(),
            epilog=EXIT_CODES,
            parents=parents,
            add_help=False,
            formatter_class=DjangoHelpFormatter,
        )
        subcommand.add_arguments(subparser)


def add_names(parser: CommandParser, rest: str, *, nargs: str = "*") -> None:
    parser.add_argument(
        "names",
        nargs=nargs,
        metavar="NAME",
        help=f"Names of routines, labels of apps, or patterns such as 'shop.load_*'{rest}",
    )


def add_database(parser: CommandParser, help: str, **details: Any) -> None:  # noqa: A002
    parser.add_argument("--database", type=_alias, metavar="ALIAS", help=help, **details)


def add_flags(parser: CommandParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, **_FLAGS[name])


def add_removal(parser: CommandParser, force: str) -> None:
    """Give a parser what a subcommand takes that removes from the record, after it asked."""
    add_names(parser, ".", nargs="+")
    parser.add_argument(
        "--noinput",
        "--no-input",
        action="store_false",
        dest="interactive",
        help="Do not ask for confirmation.",
    )
    parser.add_argument("--force", action="store_true", help=force)
    add_database(
        parser,
        "Only routines that this database records; needed where several record the same name.",
    )


def databases(registry: Registry, options: Namespace) -> list[str]:
    """Return the database that --database names, or those of routines, or else the default one."""
    return [options.database] if options.database else registry.databases or [DEFAULT_DB_ALIAS]


def selected(
    registry: Registry, options: Namespace, default: Sequence[Routine] = ()
) -> list[Routine]:
    """Return the routines of --database, or all, that are named, or the default without a name.

    Raises:
        CommandError: none of the routines that were named is in it.

    """
    routines = registry.select(options.names) if options.names else default
    there = [each for each in routines if options.database in (None, each.using)]
    if options.names and not there:
        raise not_in(options.database)
    return there


def not_in(database: str) -> CommandError:
    """Return what to raise where none of the names is in a database."""
    return exit_codes.misused(
        f"None of these routines is in database {database!r}. Leave out --database, or name other "
        "routines."
    )


def user() -> str:
    """Return the name of the operating system's user, for the history."""
    try:
        return escaped(getpass.getuser())  # which the environment may say
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _django_options() -> CommandParser:
    """Return a parent of parsers with Django's own options, without defaults.

    Because a subcommand's default would win over an option before the subcommand, it has none.
    ``--version`` stands before a subcommand alone, because ``once call`` has its own.
    """
    parser = CommandParser(add_help=False)
    group: Any = parser.add_argument_group("Django's options")
    group.add_argument("-h", "--help", action="help", help="show this help message and exit")

    class Options(BaseCommand):
        def add_base_argument(self, parser: Any, *names: str, **details: Any) -> None:
            if "--version" not in names:
                super().add_base_argument(group, *names, **details | {"default": SUPPRESS})

    Options().create_parser("", "")
    group.add_argument(
        "--skip-checks", action="store_true", default=SUPPRESS, help="Skip system checks."
    )
    return parser


def whole_number(noun: str, least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option that is a whole number."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise ArgumentTypeError(
                f"{text!r} is no {noun}. Pass a whole number from {least} to {most}"
            )
        return int(text)

    return parse


def _text(text: str) -> str:
    if escaped(text) != text:
        raise ArgumentTypeError(f"{text!r} is no text. Write UTF-8 without control characters")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number of seconds. Pass 0 or more, such as 2.5")
    return value


def _alias(text: str) -> str:
    if text not in connections.settings:
        aliases = ", ".join(sorted(connections.settings))
        raise ArgumentTypeError(f"{text!r} is not in DATABASES. Name one of {aliases}")
    return text


_FLAGS: dict[str, dict[str, Any]] = {
    "--reason": {
        "type": _text,
        "default": "",
        "metavar": "TEXT",
        "help": "The reason, for the history.",
    },
    "--no-wait": {
        "action": "store_true",
        "help": "Leave out routines that another process runs (exit code 3).",
    },
    "--timeout": {
        "type": _seconds,
        "metavar": "SECONDS",
        "help": "Give up waiting after so many seconds (exit code 4). No limit by default.",
    },
    "--json": {
        "action": "store_true",
        "dest": "as_json",
        "help": "Print one JSON object to stdout, and nothing else there.",
    },
}
