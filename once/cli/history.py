"""Show the attempts at a routine and the decisions about it, the latest first."""

from argparse import Namespace
from collections.abc import Iterator
from textwrap import indent

from django.core.management.base import CommandParser
from django.core.management.color import Style
from django.db import DEFAULT_DB_ALIAS

from once.cli import exit_codes, output
from once.cli.options import add_database, add_flags, add_names
from once.cli.output import TerminalCommand
from once.models import State
from once.routines.names import CALL
from once.routines.registry import Registry, match
from once.status import attempts, state
from once.status.attempts import PastAttempt, PastWish
from once.status.survey import recording
from once.text import escaped, inline

_Past = tuple[list[PastAttempt], list[PastWish]]

HELP = "Show the attempts at a routine, and the decisions of people about it."
USAGE = "NAME [NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, ".", nargs="+")
    add_database(parser, "Only what this database records.")
    add_flags(parser, "--json")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    past = _meant(registry, options)
    if options.as_json:
        routines = [attempts.to_json(using, name, *both) for (name, using), both in past.items()]
        output.print_json(command, {"schema": state.SCHEMA, "routines": routines})
        return
    for (name, using), (rows, made) in past.items():
        where = "" if using == DEFAULT_DB_ALIAS else f"  in {using}"
        command.stdout.write(command.style.MIGRATE_HEADING(inline(name)) + where)
        for line in _lines(rows, made, command.style, options.verbosity):
            command.stdout.write(line)


def _meant(registry: Registry, options: Namespace) -> dict[tuple[str, str], _Past]:
    """Return the history of what the names mean, by name and database."""
    aliases = [options.database] if options.database else recording(registry)
    attempted = [(name, using) for using in aliases for name in attempts.names(using)]
    declared = [(each.name, each.using) for each in registry.recorded if each.using in aliases]
    # A command may be named by its key alone.
    labels = {name: name.removeprefix(CALL) for name, _ in attempted} | registry.labels
    meant = set[str]().union(*match(map(registry.current, options.names), labels).values())
    past = dict[tuple[str, str], _Past]()
    for name, using in dict.fromkeys([*attempted, *declared]):
        if name in meant:
            past[name, using] = [], []
            if (name, using) in attempted:
                past[name, using] = attempts.last(using, name), attempts.wishes_for(using, name)
    if not past:
        where = f" in database {options.database!r}" if options.database else ""
        raise exit_codes.misused(f"Nothing is recorded{where} of {', '.join(sorted(meant))}.")
    return past


def _lines(
    past: list[PastAttempt], made: list[PastWish], style: Style, verbosity: int
) -> Iterator[str]:
    """Yield the history of a routine, fit for a terminal."""
    paints = {
        State.SUCCEEDED: style.SUCCESS,
        State.FAILED: style.ERROR,
        State.LOST: style.ERROR,
        State.RUNNING: style.NOTICE,
    }
    if not past:
        yield "  No attempt yet."
    for each in attempts.merged(past[: attempts.LAST], made):
        if isinstance(each, PastWish):
            parts = [
                f"{each.what:<11}",
                each.began,
                *([f"by {each.wish.user}"] * bool(each.wish.user)),
            ]
            yield "      " + "  ".join(map(inline, parts))
            if each.wish.reason:
                yield f"      {inline(each.wish.reason)}"
            continue
        attempt = each.attempt
        paint, label = paints.get(State(attempt.state), str), attempt.state
        if each.is_bodiless:
            paint, label = str, attempt.trigger
        parts = [f"v{each.version}"] if each.version else []
        parts.append(each.began)
        if each.lasted:
            parts.append(f"in {each.lasted}")
        parts += [f"on {attempt.host} (pid {attempt.pid})", f"by {each.by}"]
        if attempt.release:
            parts.append(f"release {attempt.release}")
        yield "  ".join([f"{attempt.number:>4}", paint(f"{label:<11}"), *map(inline, parts)])
        if attempt.reason:
            yield f"      {inline(attempt.reason)}"
        if attempt.error:
            error = attempt.error.strip() if verbosity > 1 else attempt.error_line
            yield indent(escaped(error), " " * 6)
    if len(past) > attempts.LAST:
        yield f"  Only the last {attempts.LAST} are shown."
