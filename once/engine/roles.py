"""Leave routines to the processes of their role, and with them the routines that come after."""

from collections.abc import Mapping

from once.engine.options import RunOptions
from once.results import Reason, Result, skipped
from once.routines.base import Routine
from once.routines.registry import Registry


def left(
    routine: Routine, registry: Registry, options: RunOptions, results: Mapping[str, Result]
) -> Result | None:
    """Return the result of a routine that is left to another role; ``None`` if it is not.

    Args:
        routine: a routine that is not done.
        registry: all routines of this code.
        options: of the run, with the role of this process.
        results: of the routines before, by name.

    """
    if not options.takes(routine):
        message = (
            f"Left to processes with the role {routine.role!r}, such as `ONCE_ROLE={routine.role} "
            f"manage.py once work`. To run it here, call `manage.py once run {routine.name}`."
        )
        return skipped(routine, message, reason=Reason.OTHER_ROLE)
    for predecessor in registry.predecessors(routine):
        before = results.get(predecessor.name)
        if before is not None and before.reason is Reason.OTHER_ROLE:
            role = "" if options.takes(predecessor) else f", by the role {predecessor.role!r}"
            message = f"Not tried, since {predecessor.name} must be done before{role}."
            return skipped(routine, message, reason=Reason.OTHER_ROLE)
    return None
