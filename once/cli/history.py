"""Show the attempts at a routine and the decisions about it, the latest first."""

from argparse import Namespace
from collections.abc import Iterator

from django.core.management.base import CommandParser
from django.core.management.color import Style

from once.cli import exit_codes, output
from once.cli.options import add_database, add_flags, add_names, chosen
from once.cli.output import TerminalCommand
from once.models import State
from once.routines.registry import Registry
from once.status import state
from once.status.attempts import PastAttempt, last, to_json
from once.text import plain

HELP = "Show the attempts at a routine, and who decided what about it."
USAGE = "NAME [NAME ...]"

#: Attempts that are shown at most.
_LAST = 50


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, ".", nargs="+")
    add_database(parser, "Only what this database records.")
    add_flags(parser, "--json")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    listed = chosen(registry, options.names, options.database)
    recorded = [(each.name, each.database) for each in listed if each.database is not None]
    if not recorded:
        names = ", ".join(each.name for each in listed)
        raise exit_codes.misused(f"{names}: in memory, once in each process; nothing is recorded.")
    histories = []
    for name, using in recorded:
        attempts = [PastAttempt(each) for each in last(using, name, _LAST + 1)]
        histories.append(to_json(using, name, attempts[:_LAST]))
        if not options.as_json:
            for line in _lines(name, attempts, command.style, options.verbosity):
                command.stdout.write(line)
    if options.as_json:
        output.print_json(command, {"schema": state.SCHEMA, "routines": histories})


def _lines(name: str, attempts: list[PastAttempt], style: Style, verbosity: int) -> Iterator[str]:
    """Yield the history of a routine, fit for a terminal."""
    paints = {
        State.SUCCEEDED: style.SUCCESS,
        State.FAILED: style.ERROR,
        State.LOST: style.ERROR,
        State.RUNNING: style.NOTICE,
    }
    yield style.MIGRATE_HEADING(plain(name))
    if not attempts:
        yield "  No attempt yet."
    for each in attempts[:_LAST]:
        attempt = each.attempt
        label = attempt.trigger if each.is_decision else attempt.state
        parts = [f"v{attempt.version}", each.began]
        if each.lasted:
            parts.append(f"in {each.lasted}")
        parts += [f"on {attempt.host} (pid {attempt.pid})", f"by {attempt.get_trigger_display()}"]
        if each.is_decision:
            parts[-1] = f"by {attempt.user}" if attempt.user else parts[-1]
        if attempt.release:
            parts.append(f"release {attempt.release}")
        painted = paints.get(State(attempt.state), str)(f"{label:<11}")
        yield "  ".join([f"{attempt.number:>4}", painted, *map(output.inline, parts)])
        for text in (attempt.reason, *_error(each, verbosity)):
            if text:
                yield f"      {output.inline(text)}"
    if len(attempts) > _LAST:
        yield f"  Only the last {_LAST} are shown."


def _error(each: PastAttempt, verbosity: int) -> list[str]:
    return each.attempt.error.strip().splitlines() if verbosity > 1 else [each.error_line]
