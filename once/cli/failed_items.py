"""``once run --failed-items``: try only the items that failed, each alone."""

from argparse import Namespace

from django.core.management import CommandError

from once.cli import exit_codes, items, output
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.engine import executor
from once.engine.options import RunOptions
from once.models import Trigger
from once.results import Outcome, already_done
from once.routines import in_memory
from once.routines.registry import Registry
from once.status import state
from once.status.state import RoutineState
from once.status.survey import statuses_of


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    routines = items.batched(registry, options)
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
                for line in items.lines(result.routine, options.verbosity):
                    command.stdout.write(f"  {line}")
    exit_codes.after(results, no_wait=options.no_wait)
