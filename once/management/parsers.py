"""The flags of ``manage.py once``."""

from argparse import REMAINDER, SUPPRESS, ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter
from django.db import DEFAULT_DB_ALIAS, connections

from once.base import CALL, NAME_LENGTH, Routine
from once.exceptions import RoutineError
from once.text import storable

__all__ = ["add_subcommands"]

EXIT_CODES = (
    "Exit code: 0 done; 1 a routine failed; 2 usage; 3 not everything is done; 4 gave up waiting; "
    "5 held, a person decides; 130 and 143 after SIGINT and SIGTERM."
)
NAMES = "Names of routines, labels of apps, or patterns such as 'shop.load_*'"


def add_subcommands(parser: CommandParser) -> None:
    """Give a parser the subcommands of ``once``."""
    parser.epilog = EXIT_CODES
    subcommands = parser.add_subparsers(
        dest="subcommand", required=True, metavar="SUBCOMMAND", parser_class=_Subparser
    )
    _add_run(subcommands)
    _add_status(subcommands)
    _add_wait(subcommands)
    _add_call(subcommands)
    _add_reset(subcommands)
    _add_doctor(subcommands)


class _Subparser(CommandParser):
    """A parser that takes Django's own options as well."""

    def __init__(self, **kwargs: Any) -> None:
        options = BaseCommand().create_parser("", "")
        for action in options._actions:
            action.default = SUPPRESS  # where not given here, what stands before it counts
        # Those that nobody looks for here stand at the end.
        options._action_groups[1].title = "Django's options"
        super().__init__(
            parents=[],
            add_help=False,
            formatter_class=DjangoHelpFormatter,
            epilog=EXIT_CODES,
            conflict_handler="resolve",
            **kwargs,
        )
        self._add_container_actions(options)


def _add_run(subcommands: Any) -> None:
    run = subcommands.add_parser(
        "run",
        help="Run what is pending, and wait for what others run.",
        description="Run what is pending, each routine exactly once, and wait for what other "
        "processes run.",
        usage="%(prog)s [options] [NAME ...]",
    )
    run.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{NAMES}; with those that they come after. All by default.",
    )
    run.add_argument(
        "--migrate",
        action="store_true",
        help="First run `migrate`, under a lock of its own, on every database of a routine.",
    )
    run.add_argument("--plan", action="store_true", help="Show what would run, and run nothing.")
    run.add_argument(
        "--fake",
        action="store_true",
        help="Record the named routines as done without running them.",
    )
    _add_reason(run)
    run.add_argument(
        "--keep-going",
        action="store_true",
        help="After a routine that failed, run those that do not come after it.",
    )
    run.add_argument(
        "--database",
        type=_alias,
        metavar="ALIAS",
        help="Only routines of this database, with those that they come after.",
    )
    _add_waiting(run)
    _add_json(run)


def _add_status(subcommands: Any) -> None:
    show = subcommands.add_parser(
        "status",
        help="Show how every routine stands.",
        description="Show how every routine stands: its state, progress, last error, next step.",
        usage="%(prog)s [options] [NAME ...]",
    )
    show.add_argument("names", nargs="*", metavar="NAME", help=f"{NAMES}. All by default.")
    show.add_argument(
        "--check",
        action="store_true",
        help="Exit with 3 where not everything is done, with 5 where a routine is held.",
    )
    _add_json(show)


def _add_wait(subcommands: Any) -> None:
    wait = subcommands.add_parser(
        "wait",
        help="Run nothing; return when everything is done.",
        description="Run nothing; return when the routines are done, at once where one is held.",
        usage="%(prog)s [options] [NAME ...]",
    )
    wait.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{NAMES}. All that run at start-up by default."
    )
    _add_timeout(wait)


def _add_call(subcommands: Any) -> None:
    call = subcommands.add_parser(
        "call",
        help="Run any management command exactly once.",
        description="Run a management command exactly once under a key, however many processes "
        "call it: its effects in the database and the record of them are one transaction. What "
        "is recorded is the key, not the arguments; of a failure, its traceback.",
        usage="%(prog)s [options] KEY COMMAND [ARG ...]",
    )
    call.add_argument(
        "key",
        type=_key,
        metavar="KEY",
        help="What runs once: letters, digits and any of _ . : / @ + -. `once status` shows it as "
        "call:KEY.",
    )
    call.add_argument("command", metavar="COMMAND", help="Any management command.")
    arguments = call.add_argument(
        "arguments", nargs=REMAINDER, metavar="ARG", help="Its arguments."
    )
    arguments.required = False  # or argparse asks for it by name
    call.add_argument(
        "--no-atomic",
        action="store_false",
        dest="atomic",
        help="Run it outside of a transaction: at least once, for effects outside of the database.",
    )
    call.add_argument(
        "--version",
        type=_version,
        default=1,
        metavar="N",
        help="A higher one runs again, once. Default: 1.",
    )
    call.add_argument(
        "--database",
        type=_alias,
        default=DEFAULT_DB_ALIAS,
        metavar="ALIAS",
        help="Where its effects and the record of them are. Default: default.",
    )
    _add_waiting(call)
    _add_json(call)


def _add_reset(subcommands: Any) -> None:
    reset = subcommands.add_parser(
        "reset",
        help="Make routines pending again: completed, failed or held ones.",
        description="Make routines pending again. A completed one runs again from the start, "
        "under a new idempotency key; a failed or held one goes on where it stands, under the "
        "same key.",
        usage="%(prog)s [options] NAME [NAME ...]",
    )
    reset.add_argument("names", nargs="+", metavar="NAME", help=f"{NAMES}.")
    reset.add_argument(
        "--no-input", action="store_false", dest="interactive", help="Do not ask, do it."
    )
    reset.add_argument(
        "--database",
        type=_alias,
        metavar="ALIAS",
        help="Only what this database records; needed where several record the same name.",
    )
    _add_reason(reset)


def _add_doctor(subcommands: Any) -> None:
    doctor = subcommands.add_parser(
        "doctor",
        help="Prove that this deployment can keep the promise.",
        description="Prove that this deployment can keep the promise, for each database that has "
        "routines: that the lock excludes, that a silent holder is evicted, that there are "
        "connections and privileges enough. Harmless while routines run. Exit code 1 where a "
        "fault is found.",
        usage="%(prog)s [options]",
    )
    doctor.add_argument(
        "--database", type=_alias, metavar="ALIAS", help="Only this database, routines or none."
    )
    _add_json(doctor)


def _add_reason(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--reason", type=_text, default="", metavar="TEXT", help="Why, for the history."
    )


def _add_waiting(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help="Leave out what another process runs (exit code 3).",
    )
    _add_timeout(parser)


def _add_timeout(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="Give up waiting after this long (exit code 4). No limit by default.",
    )


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        dest="as_json",
        help="Print one JSON object to stdout, and nothing else there.",
    )


def _text(text: str) -> str:
    if storable(text) != text:
        raise ArgumentTypeError(f"{text!r} is no text. Write it in UTF-8, without NUL")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


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


def _version(text: str) -> int:
    try:
        return Routine(function=lambda: None, name="any", version=int(text)).version
    except (RoutineError, ValueError):
        raise ArgumentTypeError(f"{text!r} is no version. Count them 1, 2, 3") from None


def _alias(text: str) -> str:
    if text not in connections.settings:
        known = ", ".join(sorted(connections.settings))
        raise ArgumentTypeError(f"{text!r} is not in DATABASES, which has {known}")
    return text
