"""Show the items that failed, and behind which their routine went on; the latest comes last.

`once run --failed-items` tries them again.
"""

from argparse import Namespace
from collections.abc import Iterator

from django.core.management import CommandError
from django.core.management.base import CommandParser

from once.cli import exit_codes, output
from once.cli.options import add_database, add_flags, add_names, selected
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.engine import executor
from once.engine.options import RunOptions
from once.models import Trigger
from once.results import Outcome, already_done
from once.routines import in_memory
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status import past, state
from once.status.state import RoutineState
from once.status.survey import statuses_of
from once.text import inline

USAGE = "NAME [NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, ".", nargs="+")
    add_database(parser, "Only routines that this database records.")
    add_flags(parser, "--json")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    routines = batched(registry, options)
    if options.as_json:
        shown = [past.items_to_json(each) for each in routines]
        output.print_json(command, {"schema": state.SCHEMA, "routines": shown})
        return
    for routine in routines:
        output.heading(command, routine.name, routine.using)
        for line in lines(routine, options.verbosity):
            command.stdout.write(line)


def retry(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    """Try only the items that failed, each alone: ``once run --failed-items``."""
    routines = batched(registry, options)
    stands = {status.name: status for status in statuses_of(registry, routines)}
    for status in stands.values():
        if status.state is not RoutineState.COMPLETED:
            raise CommandError(
                f"{status.name} is {status.state}. Its failed items are tried once it is "
                f"completed: call `manage.py once run {status.name}` first.",
                returncode=exit_codes.NOT_DONE,
            )
    due = [each for each in routines if stands[each.name].failed_items]
    results = [already_done(each) for each in routines if each not in due]
    with reporting(command, options):
        in_memory.run(registry.process)
        run_options = RunOptions(
            trigger=Trigger.ITEMS,
            wait=not options.no_wait,
            timeout=options.timeout,
            keep_going=options.keep_going,
        )
        results += executor.run(due, registry, run_options)
    if options.as_json:
        output.print_json(command, state.to_json(statuses_of(registry, routines), results))
    elif options.verbosity:
        for result in results:
            if result.outcome is Outcome.ALREADY_DONE:
                command.stdout.write(f"  {result.routine} has no failed items.")
            elif result.outcome is Outcome.FAILED:
                for line in lines(result.routine, options.verbosity):
                    command.stdout.write(f"  {line}")
    exit_codes.after(results, no_wait=options.no_wait)


def batched(registry: Registry, options: Namespace) -> list[Routine]:
    """Return the routines that the names mean and that go through items; raise if none does."""
    meant = selected(registry, options)
    routines = [each for each in meant if each.kind == "batched"]
    if not routines:
        raise exit_codes.misused(
            f"{meant[0]} does not go through items. Name routines that are declared with over=."
        )
    return routines


def lines(routine: Routine, verbosity: int) -> Iterator[str]:
    """Yield the failed items of a routine, fit for a terminal."""
    failed = past.items_of(routine)
    if not failed:
        yield "  No failed items."
    for each in failed[-past.LAST :]:
        yield f"  {inline(each.item)}  in attempt {each.attempt}  {each.when}"
        yield output.of_error(each.error, verbosity)
    if len(failed) > past.LAST:
        yield f"  Only the last {past.LAST} are shown. With --json all are."
