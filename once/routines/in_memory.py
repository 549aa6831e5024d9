"""Routines of process scope: in-memory ones, which every process runs once and none records."""

import threading
from collections.abc import Iterable

from once.base import Routine

__all__ = ["has_run", "run"]

_lock = threading.RLock()
_run: set[str] = set()


def run(routines: Iterable[Routine]) -> None:
    """Call those of the routines that did not run in this process, in their order.

    What a body raises is raised, with a note that names the routine.
    """
    with _lock:
        for routine in routines:
            if routine.name not in _run:
                try:
                    routine.call(None)
                except BaseException as error:
                    error.add_note(f"Raised by the routine {routine.name} (process scope).")
                    raise
                _run.add(routine.name)


def has_run(routine: Routine) -> bool:
    """Whether a routine ran in this process, or in the one that this was forked from."""
    return routine.name in _run
