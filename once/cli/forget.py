"""Remove the records of routines that no code has any more, and of commands of `once call`.

A release that still has such a routine, and a command that is called again, then run again.
"""

import logging
from argparse import Namespace
from collections.abc import Iterable
from functools import partial

from django.core.management import CommandError
from django.core.management.base import CommandParser

from once import conf
from once.cli import exit_codes, output
from once.cli.choice import named, recorded, refuse_ambiguity
from once.cli.options import add_removal, user
from once.cli.output import TerminalCommand
from once.cli.reporter import reporting
from once.databases import database
from once.databases.lock import AdvisoryLock
from once.engine import shutdown
from once.engine.backoff import Wait
from once.log import tell
from once.models import State
from once.record import anchors, history, queries, recorder
from once.routines.base import Routine
from once.routines.names import CALL
from once.routines.registry import Registry
from once.text import inline

_BURIED = (
    "{0} has the name {1} now, and its tombstone keeps an older release from running it again. "
    "Where no older release is left, and {1} is to keep its record, pass --force."
)

USAGE = "NAME [NAME ...]"


def add_arguments(parser: CommandParser) -> None:
    add_removal(
        parser,
        "Also the tombstones of old names, by which an older release does not run them again.",
    )


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    places = _places(registry, options)
    if options.interactive:
        names = [inline(name) for name in places]
        output.confirm(
            command,
            f"This removes the only records that these routines ran: {', '.join(names)}.",
            "These routines lose their records. Where code has or calls one, it runs again:",
            names,
            "Nothing was removed.",
        )
    with reporting(command, options):
        for name, using in places.items():
            counts = ", ".join(f"{count} {kind}" for kind, count in _forget(name, using).items())
            removed = f"removed {counts}."
            tell(
                logging.INFO,
                "forgotten",
                routine=name,
                database=using,
                user=user(),
                message=removed,
            )
            if options.verbosity:
                command.stdout.write(f"  {inline(name)}: {removed}")
    if options.verbosity and any(name.startswith(CALL) for name in places):
        command.stdout.write("  A command runs again where `manage.py once call` calls it.")


def _places(registry: Registry, options: Namespace) -> dict[str, str]:
    """Return the database of each name that is recorded, and meant."""
    every = recorded(registry, options)
    names = named(registry, options.names, (name for name, _ in every))
    found = [(name, using) for name, using in every if name in names]
    refuse_ambiguity(found)
    where = {using for _, using in found}
    buried = _renamed(names, where)
    if buried and not options.force:
        raise exit_codes.misused(_BURIED.format(*min(buried.items())))
    for old, present in _renamed(registry.labels, where).items():
        if present in names:
            raise exit_codes.misused(
                f"{present} is the name that another release gave to {old} of this code. That "
                "release needs its record. Remove it by code that has neither name."
            )
    known = {name: registry.current(name) for name in sorted(names - buried.keys())}
    for name, present in known.items():
        if present in registry.labels:
            by_name = "" if name == present else f", by the name {present}"
            raise exit_codes.misused(
                f"{name} is in this code{by_name}, so that its record is needed. To have it run "
                f"again, call `manage.py once reset {present}`."
            )
    return dict(found)


def _renamed(names: Iterable[str], aliases: Iterable[str]) -> dict[str, str]:
    """Return the present names for those of the names that have a tombstone."""
    present: dict[str, str] = {}
    for using in aliases:
        with database(using).reading():
            present |= queries.renamed(using, names)
    return present


def _forget(name: str, using: str) -> dict[str, int]:
    """Remove the records of a routine, under its lock."""
    with database(using).lock(name, conf.liveness_timeout()) as lock:
        patient = Wait(name=name, using=using, deadline=None, lock=lock)
        return patient.until(partial(_look, name, lock, patient))


def _look(name: str, lock: AdvisoryLock, patient: Wait) -> dict[str, int]:
    here = database(patient.using)
    routine = Routine(function=lambda: None, name=name, using=here.using)
    with here.session():
        if not lock.acquire(patient.answer_within):
            raise CommandError(
                f"{name} is not removed: its lock is taken by {inline(patient.holder())}. Wait for "
                "that process, or end it.",
                returncode=exit_codes.NOT_DONE,
            )
        with shutdown.deferred():
            # Fence, then delete: a frozen process may still be inside the work transaction.
            for attempt in lock.read(partial(history.next_attempt, routine)).predecessors:
                recorder.close(attempt, State.LOST, "It was forgotten.")
            with here.work():
                removed = anchors.forget(here.using, name)
                lock.ping()
            return removed
