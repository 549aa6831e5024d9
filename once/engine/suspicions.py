"""Tell where routines that were never tried may have run under other names."""

from collections.abc import Callable, Sequence
from functools import partial

from once import signals
from once.record import history
from once.record.standing import Record
from once.routines import renamed
from once.routines.base import Routine
from once.routines.registry import Registry
from once.routines.renamed import Suspicion


class Suspicions:
    """The suspicions of a pass over routines, each of which is told once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._untold: dict[str, list[Suspicion]] = {}

    def tell(
        self,
        routine: Routine,
        routines: Sequence[Routine],
        stands: dict[str, Record],
        ask: Callable[[Callable[[], set[str]]], set[str]],
    ) -> None:
        """Tell of a routine that is to be run next, and of all like it, if there is a suspicion.

        Args:
            routine: the routine, which was never tried.
            routines: all of the pass.
            stands: their records, as far as they are known.
            ask: calls a function that asks the database, as the pass does.

        """
        using = routine.using
        if using not in self._untold:
            here = [each.name for each in routines if each.using == using]
            new = [name for name in here if name in stands and stands[name].is_untried]
            unknown = ask(partial(history.unknown, using, self._registry.labels))
            self._untold[using] = renamed.suspicions(using, new, self._registry, unknown)
        untold = self._untold[using]
        if told := next((each for each in untold if routine.name in each.new), None):
            untold.remove(told)
            signals.suspected.send_robust(routine, message=told.message)
