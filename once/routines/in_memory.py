"""Routines of process scope, in memory: every process runs them once, and no record is kept."""

import threading
from collections.abc import Iterable

from once.routines import registry
from once.routines.base import Routine

_lock = threading.RLock()


def run(routines: Iterable[Routine]) -> None:
    """Call the routines that did not run in this process, in their order.

    An error of a body is raised, with a note that names the routine.
    """
    with _lock:
        for routine in routines:
            if routine.name not in registry.site.ran:
                try:
                    routine.call(None)
                except BaseException as error:
                    error.add_note(f"Raised by the routine {routine.name} (process scope).")
                    raise
                registry.site.ran.add(routine.name)


def has_run(routine: Routine) -> bool:
    """True if a routine ran in this process, or in the process that forked it."""
    return routine.name in registry.site.ran
