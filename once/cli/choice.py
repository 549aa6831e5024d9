"""The routines that the arguments of a subcommand choose from the record, and from this code.

Apart from :mod:`once.cli.options`, because a run with nothing to do reads no status.
"""

from argparse import Namespace
from collections.abc import Iterable

from django.core.management import CommandError
from django.db import connections

from once.cli import exit_codes
from once.cli.options import not_in
from once.cli.output import TerminalCommand
from once.routines.names import CALL
from once.routines.registry import Registry, match
from once.status import past
from once.status.decisions import Decision, refusal
from once.status.state import Status
from once.status.survey import recording, statuses
from once.text import inline


def refuse_ambiguity(recorded: Iterable[tuple[str, str]]) -> None:
    """Raise if a name, of those with the database of each record, is recorded in several."""
    found: dict[str, list[str]] = {}
    for name, using in recorded:
        found.setdefault(name, []).append(using)
    for name, where in found.items():
        if len(where) > 1:
            raise exit_codes.misused(
                f"{name} is recorded in several databases: {', '.join(where)}. Name one by "
                "--database."
            )


def recorded(registry: Registry, options: Namespace) -> list[tuple[str, str]]:
    """Return each name with a database that has a record of it, or only of --database."""
    aliases = [options.database] if options.database else recording(registry)
    return [(name, using) for using in aliases for name in past.names(using)]


def named(registry: Registry, names: Iterable[str], known: Iterable[str]) -> set[str]:
    """Return the known names, and those of this code, that names, labels or patterns mean."""
    # A command may be named by its key alone.
    labels = {name: name.removeprefix(CALL) for name in known} | registry.labels
    return set[str]().union(*match(names, labels).values())


def chosen(registry: Registry, options: Namespace) -> list[Status]:
    """Return the status of what the names mean, recorded or registered, in one database or all."""
    names, database = [registry.current(name) for name in options.names], options.database
    registered = {routine.name: routine.using for routine in registry.recorded}
    databases = set(connections.settings)
    if database is not None:
        databases = {database}
    elif names and set(names) <= set(registered):
        # Because another database may be out of reach, only those of the routines are read.
        databases = {registered[name] for name in names}
    everything = statuses(registry, databases=databases)
    if not names:
        return [each for each in everything if database in (None, each.database)]
    meant = named(registry, names, (each.name for each in everything))
    found = [each for each in everything if each.name in meant]
    if database is not None and not found:
        raise not_in(database)
    return found


def allowed(command: TerminalCommand, decision: Decision, listed: Iterable[Status]) -> list[Status]:
    """Return the routines about which a decision can be carried out.

    Where a routine stands as it was decided anyway, print that.

    Raises:
        CommandError: the decision can never be carried out about a routine, or not now.

    """
    able = []
    for status in listed:
        refused = refusal(decision, status)
        if refused is None:
            able.append(status)
        elif refused.exit_code:
            raise CommandError(inline(refused.message), returncode=refused.exit_code)
        else:
            command.stdout.write(f"  {inline(refused.message)}")
    return able
