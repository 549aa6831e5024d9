"""What the names on a command line mean."""

from django.core.management import CommandError
from django.db import connections

from once import registry, status
from once.base import CALL
from once.management import exits
from once.registry import Registry
from once.status import Status

__all__ = ["chosen"]


def chosen(found: Registry, names: list[str], database: str | None = None) -> list[Status]:
    """The status of what the names mean, recorded or registered, in one database or in all."""
    registered = {routine.name: routine.using for routine in found.recorded}
    if database is not None:
        shown = status.statuses(found, databases={database})
    elif names and set(names) <= set(registered):
        # Another database may be out of reach.
        shown = status.statuses(found, databases={registered[name] for name in names})
    else:
        shown = status.statuses(found, databases=connections.settings)
    if not names:
        return shown
    # A command may be named by its key alone.
    known = {one.name: one.name.removeprefix(CALL) for one in shown} | found.labels
    meant = set[str]().union(*registry.match(names, known).values())
    found_here = [one for one in shown if one.name in meant]
    if database is not None and not found_here:
        raise CommandError(
            f"None of these is in database {database!r}. Leave out --database, or name others.",
            returncode=exits.USAGE,
        )
    return found_here
