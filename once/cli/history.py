"""Show the attempts at a routine and the decisions about it, the latest first."""

from argparse import Namespace
from collections.abc import Iterator

from django.core.management.base import CommandParser
from django.core.management.color import Style

from once.cli import exit_codes, output
from once.cli.choice import named, recorded
from once.cli.options import add_database, add_flags, add_names
from once.cli.output import TerminalCommand
from once.routines.registry import Registry
from once.status import state
from once.status.past import LAST, History, PastWish, history_of, to_json
from once.text import inline

USAGE = "NAME [NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, ".", nargs="+")
    add_database(parser, "Only routines that this database records.")
    add_flags(parser, "--json")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    past = _past(registry, options)
    if options.as_json:
        routines = [to_json(using, name, history) for (name, using), history in past.items()]
        output.print_json(command, {"schema": state.SCHEMA, "routines": routines})
        return
    for (name, using), history in past.items():
        output.heading(command, name, using)
        for line in _lines(history, command.style, options.verbosity):
            command.stdout.write(line)


def _past(registry: Registry, options: Namespace) -> dict[tuple[str, str], History]:
    """Return the history of what the names mean, by name and database."""
    known = recorded(registry, options)
    declared = [
        (each.name, each.using)
        for each in registry.recorded
        if options.database in (None, each.using)
    ]
    names = named(registry, map(registry.current, options.names), (name for name, _ in known))
    past = dict[tuple[str, str], History]()
    for name, using in dict.fromkeys([*known, *declared]):
        if name in names:
            is_known = (name, using) in known
            past[name, using] = history_of(using, name) if is_known else History()
    if not past:
        where = f" in database {options.database!r}" if options.database else ""
        raise exit_codes.misused(
            f"Nothing is recorded{where} of {', '.join(sorted(names))}. `manage.py once status` "
            "shows where each routine is recorded."
        )
    return past


def _lines(history: History, style: Style, verbosity: int) -> Iterator[str]:
    """Yield the history of a routine, fit for a terminal."""
    if not history.attempts:
        yield "  No attempt yet."
    for each in history.shown:
        if isinstance(each, PastWish):
            parts = [f"{each.what:<11}", each.began]
            parts += [f"by {each.wish.user}"] if each.wish.user else []
            yield "      " + "  ".join(map(inline, parts))
            if each.wish.reason:
                yield f"      {inline(each.wish.reason)}"
            continue
        attempt = each.attempt
        label = output.painted(style, attempt.trigger if each.is_bodiless else attempt.state, 11)
        parts = [f"v{each.version}"] if each.version else []
        parts.append(each.began)
        if each.lasted:
            parts.append(f"in {each.lasted}")
        parts += [f"on {attempt.host} (pid {attempt.pid})", f"by {each.by}"]
        if attempt.release:
            parts.append(f"release {attempt.release}")
        yield "  ".join([f"{attempt.number:>4}", label, *map(inline, parts)])
        if attempt.reason:
            yield f"      {inline(attempt.reason)}"
        if attempt.error:
            yield output.of_error(attempt.error, verbosity)
    if history.has_more:
        yield f"  Only the last {LAST} are shown."
