"""Finds the routines, orders them, and refuses those that cannot work together."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from importlib import import_module

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from once import declare
from once.base import Routine
from once.exceptions import RoutineError, UnknownRoutine

__all__ = ["Registry", "discover", "load", "match"]

MODULE = "routines"


class Registry:
    """Routines in the order in which they run.

    The order is that of INSTALLED_APPS, then of definition; a routine that comes after a later
    one moves back behind it, and no further.

    Raises:
        RoutineError: a duplicate name, an unknown or contradictory ``after``, or a cycle.

    """

    def __init__(self, routines: Iterable[Routine]) -> None:
        by_name: dict[str, Routine] = {}
        for routine in sorted(routines, key=_app_position):
            if routine.name in by_name:
                raise RoutineError(
                    f"Two routines are named {routine.name!r}: {_place(by_name[routine.name])} and "
                    f"{_place(routine)}. Rename one, or pass name=; the record knows them by name."
                )
            by_name[routine.name] = routine
        self._after = {
            routine.name: [_predecessor(routine, other, by_name) for other in routine.after]
            for routine in by_name.values()
        }
        self.routines = tuple(_ordered(by_name, self._after))
        self._by_name = by_name

    def __iter__(self) -> Iterator[Routine]:
        return iter(self.routines)

    @property
    def process(self) -> list[Routine]:
        """Routines that run once in each process."""
        return [routine for routine in self.routines if routine.scope == "process"]

    @property
    def recorded(self) -> list[Routine]:
        """Routines whose completion a database records."""
        return [routine for routine in self.routines if routine.scope != "process"]

    @property
    def startup(self) -> list[Routine]:
        """Recorded routines that starting servers run and readiness waits for."""
        return [routine for routine in self.recorded if routine.startup]

    @property
    def labels(self) -> dict[str, str]:
        """The names of all routines, each with the label of its app, or nothing."""
        return {routine.name: _app_label(routine) for routine in self.routines}

    def predecessors(self, routine: Routine) -> list[Routine]:
        """Routines that must be done before this one."""
        return self._after[routine.name]

    def select(self, names: Iterable[str]) -> list[Routine]:
        """The recorded routines that names, app labels or shell patterns mean, in order.

        Raises:
            UnknownRoutine: one of them means no recorded routine.

        """
        matched = match(names, self.labels)
        for name, found in matched.items():
            chosen = [routine for routine in self.recorded if routine.name in found]
            if found and not chosen:
                raise UnknownRoutine(
                    f"{name} runs in every process by itself (process scope): there is nothing to "
                    "run by hand or to wait for."
                )
        wanted = set[str]().union(*matched.values())
        return [routine for routine in self.recorded if routine.name in wanted]

    def with_predecessors(self, routines: Iterable[Routine]) -> list[Routine]:
        """These routines and all that must be done before them, in order."""
        wanted: set[str] = set()
        ahead = list(routines)
        while ahead:
            routine = ahead.pop()
            if routine.name not in wanted:
                wanted.add(routine.name)
                ahead.extend(self.predecessors(routine))
        return [routine for routine in self.recorded if routine.name in wanted]


def match(names: Iterable[str], known: Mapping[str, str]) -> dict[str, set[str]]:
    """What each of the names means among known ones.

    Args:
        names: names of routines, app labels, or shell patterns such as ``shop.load_*``.
        known: names of routines, each with the label of its app, or nothing.

    Raises:
        UnknownRoutine: one of the names means nothing.

    """
    found = {
        name: {
            each
            for each, label in known.items()
            if name and (name in (each, label) or fnmatchcase(each, name))
        }
        for name in names
    }
    if unknown := [name for name, meant in found.items() if not meant]:
        raise UnknownRoutine(
            f"No routine is named {', '.join(map(repr, unknown))}, and no app with routines. "
            f"Routines here: {', '.join(known) or 'none'}."
        )
    return found


def load() -> Registry:
    """The registry of every routine, after importing ``routines.py`` of each installed app.

    Raises:
        RoutineError: the routines cannot work together.

    """
    global _loaded
    discover()
    if _loaded is None or _loaded[0] != declare.declared:
        _loaded = list(declare.declared), Registry(declare.declared)
    return _loaded[1]


_loaded: tuple[list[Routine], Registry] | None = None


@cache
def discover() -> None:
    """Import ``routines.py`` of each installed app, once in a process."""
    for app in apps.get_app_configs():
        if app.module is not None and module_has_submodule(app.module, MODULE):
            import_module(f"{app.name}.{MODULE}")


def _app_label(routine: Routine) -> str:
    app = apps.get_containing_app_config(routine.function.__module__)
    return app.label if app else ""


def _app_position(routine: Routine) -> int:
    app = apps.get_containing_app_config(routine.function.__module__)
    configs = list(apps.get_app_configs())
    return configs.index(app) if app else len(configs)


def _predecessor(routine: Routine, other: Routine | str, by_name: dict[str, Routine]) -> Routine:
    found = by_name.get(str(other))
    if found is None:
        raise RoutineError(
            f"Routine {routine.name!r} comes after {str(other)!r}, which does not exist. "
            "Correct after=, or install the app that declares it."
        )
    if routine.scope == "process" and found.scope != "process":
        raise RoutineError(
            f"Routine {routine.name!r} runs in every process, so it cannot wait for "
            f"{found.name!r}, which a database records. Remove it from after=."
        )
    if routine.startup and not found.startup:
        raise RoutineError(
            f"Routine {routine.name!r} runs at start-up, but comes after {found.name!r}, which "
            "has startup=False. Give both the same startup=."
        )
    return found


def _ordered(by_name: dict[str, Routine], after: dict[str, list[Routine]]) -> Iterator[Routine]:
    position = {name: index for index, name in enumerate(by_name)}
    names = list(by_name)
    sorter = TopologicalSorter(
        {position[name]: [position[routine.name] for routine in after[name]] for name in names}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(names[index] for index in reversed(error.args[1]))
        raise RoutineError(
            f"Routines come after each other in a circle: {circle}. Remove one after=."
        ) from None
    ready: list[int] = []
    while sorter.is_active():
        for index in sorter.get_ready():
            heappush(ready, index)
        index = heappop(ready)
        sorter.done(index)
        yield by_name[names[index]]


def _place(routine: Routine) -> str:
    return f"{routine.function.__module__}.{routine.function.__qualname__}"
