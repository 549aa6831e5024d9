"""Run what is pending, each routine exactly once, and wait for what other processes run."""

from argparse import Namespace
from dataclasses import replace
from time import monotonic

from django.core.management.base import CommandParser

from once import conf
from once.cli import exit_codes, output
from once.cli.options import add_database, add_flags, add_names, selected, user, whole_number
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.engine import executor, roles
from once.engine.options import RunOptions
from once.models import Trigger
from once.results import Result
from once.routines import in_memory
from once.routines.base import Routine
from once.routines.registry import Registry
from once.routines.state import State
from once.status import state
from once.status.state import RoutineState

USAGE = "[NAME ...]"

#: The act of an option, and the options that do something else.
_ALONE = {
    "failed_items": (
        "--failed-items tries items and nothing else.",
        ("plan", "fake", "migrate", "revert", "dry_run", "limit", "reason"),
    ),
    "dry_run": (
        "--dry-run records nothing.",
        ("plan", "fake", "migrate", "revert", "keep_going", "reason"),
    ),
    "plan": ("--plan runs nothing.", ("fake", "migrate", "revert")),
}


def add_arguments(parser: CommandParser) -> None:
    add_names(parser, "; with those that they come after. All by default.")
    parser.add_argument(
        "--migrate",
        action="store_true",
        help="First run `migrate`, under a lock of its own, on default and each database of a "
        "routine.",
    )
    parser.add_argument("--plan", action="store_true", help="Show what would run, and run nothing.")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="Call the body of the named routine, for one batch if it has batches, and roll back.",
    )
    parser.add_argument(
        "--limit",
        type=whole_number("number of items", 1, 2**31 - 1),
        metavar="N",
        help="With --dry-run: for so many items, instead of one batch.",
    )
    parser.add_argument(
        "--fake",
        action="store_true",
        help="Record the named routines as done without running them.",
    )
    parser.add_argument(
        "--revert",
        action="store_true",
        help="Also run again routines with an earlier value of scope=state(...), for a rollback.",
    )
    parser.add_argument(
        "--failed-items",
        action="store_true",
        help="Try only the items that failed of the named routines, which are completed, one by "
        "one.",
    )
    add_flags(parser, "--reason")
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="After a routine that failed, run those that do not come after it.",
    )
    add_database(parser, "Only routines of this database, with those that they come after.")
    add_flags(parser, "--no-wait", "--timeout", "--json")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    _refuse_contradictions(options)
    if options.failed_items:
        from once.cli import items  # and all that reads the record thoroughly

        items.retry(command, registry, options)
        return
    if options.dry_run:
        from once.cli import dry_run  # and all that calls a body

        dry_run.handle(command, registry, options)
        return
    routines = _routines(registry, options)
    if options.plan:
        _plan(command, registry, routines, options)
        return
    begun = monotonic()
    with reporting(command, options):
        if options.migrate:
            from once.cli import migrate  # and all of Django that makes migrations

            migrate.migrate(command, registry, routines, options)
        if not options.fake:
            in_memory.run(registry.process)
        timeout = options.timeout
        run_options = RunOptions(
            trigger=Trigger.FAKE if options.fake else Trigger.COMMAND,
            wait=not options.no_wait,
            timeout=None if timeout is None else max(0.0, timeout - (monotonic() - begun)),
            keep_going=options.keep_going,
            reverts=options.revert,
            role=_role(options),
            user=user() if options.fake or options.revert else "",
            reason=options.reason,
        )
        results = executor.run(routines, registry, run_options)
    asked = selected(registry, options)
    output.conclude(command, registry, results, options, asked=asked)


def _role(options: Namespace) -> str | None:
    """Return the role whose routines to take, or ``None`` for what is named, of any role."""
    return None if options.names else conf.role()


def _refuse_contradictions(options: Namespace) -> None:
    def given(*names: str) -> list[str]:
        return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]

    for name, (what, others) in _ALONE.items():
        if given(name) and (needless := given(*others)):
            raise exit_codes.misused(f"{what} Leave out {', '.join(needless)}.")
    if not options.names and (nameless := given("fake", "failed_items")):
        raise exit_codes.misused(f"{nameless[0]} needs the NAME of each routine.")
    if options.reason and not given("fake", "revert"):
        raise exit_codes.misused(
            "--reason says why routines are recorded by --fake, or reset by --revert. Pass one of "
            "them, or leave out --reason."
        )
    if options.limit and not options.dry_run:
        raise exit_codes.misused(
            "--limit says how many items --dry-run tries. Pass both, or leave it out."
        )


def _routines(registry: Registry, options: Namespace) -> list[Routine]:
    routines = selected(registry, options, registry.recorded)
    of_state = [each for each in routines if isinstance(each.scope, State)]
    if options.revert and options.names and not of_state:
        raise exit_codes.misused(
            "--revert is for routines with scope=state(...), and none of these is one. Leave it "
            "out, or name such a routine."
        )
    return routines if options.fake else registry.with_predecessors(routines)


def _plan(
    command: TerminalCommand, registry: Registry, routines: list[Routine], options: Namespace
) -> None:
    from once.status.readiness import undone  # and all that reads the record thoroughly

    run_options = RunOptions(trigger=Trigger.COMMAND, role=_role(options))
    by_name = {each.name: each for each in undone(registry, routines)}
    elsewhere: dict[str, Result] = {}
    for routine in routines:
        skipped = roles.left(routine, registry, run_options, elsewhere)
        if skipped and (status := by_name.get(routine.name)):
            elsewhere[routine.name] = skipped
            by_name[routine.name] = replace(status, message=skipped.message)
    pending = [*by_name.values()]
    if options.as_json:
        output.print_json(command, state.to_json(pending))
        return
    halting = (RoutineState.HELD, RoutineState.PAUSED, RoutineState.BLOCKED)
    awaited = {each.waits_for for each in pending if each.waits_for}
    # Because a done routine has failed items, or is begun by newer code, where one waits for it.
    done = awaited - by_name.keys()
    names = {each.name for each in pending if each.state in halting} | elsewhere.keys() | done
    halted = [each for each in pending if names & {each.name, each.waits_for}]
    due = [each for each in pending if each not in halted]
    heading = command.style.MIGRATE_HEADING
    command.stdout.write(heading("To be run, in this order:"))
    for line in output.lines(due, command.style) if due else ["No routines to run."]:
        command.stdout.write(f"  {line}")
    if halted:
        command.stdout.write(heading("Not to be run:"))
    for line in output.lines(halted, command.style):
        command.stdout.write(f"  {line}")
