"""Make routines pending again: completed, failed or held ones.

A completed one runs again from the start, under a new idempotency key; a failed or held one goes on
where it stands, under the same key.
"""

from argparse import Namespace
from collections.abc import Sequence

from django.core.management.base import CommandParser

from once.cli import exit_codes, output
from once.cli.choice import allowed, chosen, refuse_ambiguity
from once.cli.options import add_flags, add_removal, user
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.models import Trigger
from once.routines.registry import Registry
from once.status import decisions
from once.status.state import RoutineState, Status
from once.text import inline

USAGE = "NAME [NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_removal(
        parser,
        "Also what a migration that is applied needed, though its rows may be of no use now.",
    )
    add_flags(parser, "--reason")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    listed = chosen(registry, options)
    # Because a pattern means what is recorded, a routine in memory is meant by its full name only.
    meant = [each for each in listed if each.kind != "process" or each.name in options.names]
    refuse_ambiguity((each.name, str(each.database)) for each in meant)
    resets = allowed(command, Trigger.RESET, meant)
    if not resets:
        return
    if not options.force and (needed := decisions.passed(resets)):
        raise exit_codes.misused(decisions.refuse_passed(needed))
    if options.interactive:
        _confirm(command, resets)
    with reporting(command, options):
        results = [
            decisions.carry_out(Trigger.RESET, each, registry, user=user(), reason=options.reason)
            for each in resets
        ]
    exit_codes.after(results)
    if options.verbosity:
        names = ", ".join(inline(each.name) for each in resets)
        is_call = all(each.kind == "call" for each in resets)
        again = "call it again by `manage.py once call`" if is_call else "`manage.py once run`"
        command.stdout.write(f"  Pending again: {names}. Next: {again}.")


def _confirm(command: TerminalCommand, resets: Sequence[Status]) -> None:
    """Ask where effects may come to exist twice."""
    may_have_run = (RoutineState.COMPLETED, RoutineState.HELD)
    repeated = [each for each in resets if each.state in may_have_run]
    if not repeated:
        return
    output.confirm(
        command,
        "This has routines run again that are done, or may have run: "
        f"{', '.join(each.name for each in repeated)}.",
        "These are done, or may have run, and will run again:",
        output.lines(repeated, command.style),
        "Nothing was reset.",
    )
