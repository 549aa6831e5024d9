"""``once run --dry-run``: try a routine, print what it did, and undo that."""

from argparse import Namespace
from typing import Any

from django.core.management import CommandError
from django.db import Error

from once.cli import exit_codes, output
from once.cli.options import selected
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.engine.rehearsal import LOCKS, Rehearsal, rehearse
from once.routines import in_memory
from once.routines.base import Routine
from once.routines.registry import Registry
from once.status import text
from once.text import inline, one_line, trace, whole

_KEPT = (
    "Rolled back, and recorded as nothing. A rollback does not undo numbers taken from sequences, "
    "nor effects outside of this database: e-mails, requests, files, caches. Hooks of on_commit "
    "did not run."
)
_KEPT_ON_MYSQL = " Nor does it undo what commits by itself here, such as CREATE TABLE."


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    routine = _chosen(registry, options)
    with reporting(command, options):
        in_memory.run(registry.process)
        rehearsal = rehearse(
            routine,
            registry,
            limit=options.limit,
            wait=not options.no_wait,
            timeout=options.timeout,
        )
    if options.as_json:
        output.print_json(command, to_json(rehearsal))
    if rehearsal.error is not None:
        raise _failure(command, rehearsal)
    if options.verbosity and not options.as_json:
        for line in _lines(rehearsal):
            command.stdout.write(f"  {inline(line)}")


def _chosen(registry: Registry, options: Namespace) -> Routine:
    """Return the one routine that can be tried."""
    routines = selected(registry, options)
    if len(routines) != 1:
        raise exit_codes.misused(f"--dry-run needs the NAME of one routine, not {len(routines)}.")
    [routine] = routines
    if routine.kind == "external":
        raise exit_codes.misused(
            f"The effects of {routine.name} are outside of the database (atomic=False), and no "
            "rollback undoes them. Leave out --dry-run to run it."
        )
    if options.limit and routine.kind != "batched":
        raise exit_codes.misused(f"{routine.name} has no batches. Leave out --limit.")
    return routine


def _failure(command: TerminalCommand, rehearsal: Rehearsal) -> CommandError:
    error: Any = rehearsal.error
    command.stderr.write(trace(error))
    next_step = "Fix the cause, and run this again."
    if isinstance(error, Error) and rehearsal.here.is_in_the_way(error):
        next_step = f"A dry run waits for a lock for {LOCKS} s at most. Run this again."
    return CommandError(
        f"{rehearsal.routine.name} failed, was rolled back and is recorded as nothing. "
        f"{inline(one_line(error, rehearsal.place)).rstrip('.')}. {next_step}",
        returncode=exit_codes.FAILED,
    )


def _lines(rehearsal: Rehearsal) -> list[str]:
    name, took = rehearsal.routine.name, text.duration(rehearsal.seconds)
    what = f"Tried {name}"
    if rehearsal.items is not None:
        what += f" with {rehearsal.items:,} items"
    if rehearsal.items:
        took += f", {1000 * rehearsal.seconds / rehearsal.items:.3f} ms an item"
    changed = f"{rehearsal.rows:,}"
    if rehearsal.tables:
        listed = [f"{rows:,} of {table}" for table, rows in sorted(rehearsal.tables.items())]
        changed = ", ".join(listed)
    lines = [
        f"{what}: {took}, {rehearsal.statements:,} statement{'s'[: rehearsal.statements != 1]}.",
        f"Rows inserted, updated and deleted: {changed}.",
    ]
    if rehearsal.left is not None:
        about = text.duration(rehearsal.seconds_left, 0)
        lines.append(f"Left: {rehearsal.left:,} items{f', about {about}' if about else ''}.")
    is_mysql = rehearsal.here.connection.vendor == "mysql"
    return [*lines, _KEPT + _KEPT_ON_MYSQL * is_mysql]


def to_json(rehearsal: Rehearsal) -> dict[str, Any]:
    """Return the object that ``--json`` prints; its keys are a contract."""
    per_item = rehearsal.seconds / rehearsal.items if rehearsal.items else None
    error = rehearsal.error
    return {
        "schema": 1,
        "routine": rehearsal.routine.name,
        "database": rehearsal.routine.using,
        "items": rehearsal.items,
        "items_left": rehearsal.left,
        "seconds": rehearsal.seconds,
        "seconds_per_item": per_item,
        "seconds_left": rehearsal.seconds_left,
        "statements": rehearsal.statements,
        "rows": rehearsal.rows,
        "rows_by_table": rehearsal.tables,
        "error": None if error is None else whole(error, rehearsal.place),
    }
