"""Pause routines: a batched one stops after the batch in hand, and no process takes it up again.

The body of any other one comes to its end first. Until it is resumed, servers start without it.
"""

from argparse import Namespace
from functools import partial

from django.core.management.base import CommandParser

from once.cli.choice import allowed, chosen, refuse_ambiguity
from once.cli.options import add_database, add_flags, add_names, user
from once.cli.output import TerminalCommand
from once.models import Wish
from once.routines.registry import Registry
from once.status import decisions
from once.status.state import Status
from once.text import inline

USAGE = "NAME [NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, ".", nargs="+")
    add_database(parser, "Only routines that this database records.")
    add_flags(parser, "--reason")


def wish(kind: Wish.Kind, command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    """Record a pause, or its end, for the routines that the names mean."""
    record(command, kind, meant(command, registry, options, kind), options)


handle = partial(wish, Wish.Kind.PAUSE)


def meant(
    command: TerminalCommand, registry: Registry, options: Namespace, kind: Wish.Kind
) -> list[Status]:
    """Return the routines that the names mean, each of which the wish can be for."""
    listed = chosen(registry, options)
    # Because a pattern means what waits or runs, one that cannot is meant by its full name only.
    refused = {each.name: decisions.refusal(kind, each) for each in listed}
    named = [each for each in listed if not refused[each.name] or each.name in options.names]
    if not named:
        needless = [each for each in listed if (no := refused[each.name]) and not no.exit_code]
        named = needless or listed
    refuse_ambiguity((each.name, str(each.database)) for each in named)
    return allowed(command, kind, named)


def record(
    command: TerminalCommand,
    kind: Wish.Kind,
    listed: list[Status],
    options: Namespace,
    values: dict[str, float | None] | None = None,
) -> None:
    """Record a wish for each routine, and print what follows."""
    for status in listed:
        message, _ = decisions.record_wish(
            kind, status, user=user(), reason=options.reason, values=values or {}
        )
        if options.verbosity:
            command.stdout.write(f"  {inline(message)}")
