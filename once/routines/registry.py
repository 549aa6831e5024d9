"""Find the routines, order them, and refuse those that cannot work together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from importlib import import_module

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from once.exceptions import RoutineError, UnknownRoutine
from once.routines.base import Routine

MODULE = "routines"
#: Routines that a message lists at most.
_LISTED = 20


class Registry:
    """Routines in the order in which they run, by their names of now and of earlier releases.

    The order is that of INSTALLED_APPS, then of definition; a routine that comes after a later
    one moves back behind it, and no further.

    Raises:
        RoutineError: a duplicate name or old name, an unknown or contradictory ``after``, a cycle.

    """

    def __init__(self, routines: Iterable[Routine]) -> None:
        by_name: dict[str, Routine] = {}
        position = {label: index for index, label in enumerate(apps.app_configs)}
        for routine in sorted(routines, key=lambda it: position.get(_app_label(it), len(position))):
            if routine.name in by_name:
                raise RoutineError(
                    f"Two routines are named {routine.name!r}: {_place(by_name[routine.name])} and "
                    f"{_place(routine)}. Rename one, or pass name=; the record knows them by name."
                )
            by_name[routine.name] = routine
        #: The name of each routine by each name that it had in earlier releases.
        self.renamed = _renamed(by_name)
        self._after = {
            routine.name: [
                _predecessor(routine, by_name.get(self.current(str(other))), other)
                for other in routine.after
            ]
            for routine in by_name.values()
        }
        self.routines = tuple(_ordered(by_name, self._after))

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
    def databases(self) -> list[str]:
        """Aliases of the databases of recorded routines, in order."""
        return sorted({routine.using for routine in self.recorded})

    @property
    def labels(self) -> dict[str, str]:
        """The names of all routines, each with the label of its app, or empty."""
        return {routine.name: _app_label(routine) for routine in self.routines}

    def current(self, name: str) -> str:
        """Return the present name of a routine for a name that it has, or had."""
        return self.renamed.get(name, name)

    def predecessors(self, routine: Routine) -> list[Routine]:
        """Return the routines that must be done before a routine."""
        return self._after.get(routine.name, [])  # a command of `once call` is not registered

    def select(self, names: Iterable[str]) -> list[Routine]:
        """Return the recorded routines that names, app labels or patterns mean, in order.

        Raises:
            UnknownRoutine: a name means no recorded routine.

        """
        matched = match(map(self.current, names), self.labels)
        for name, meant in matched.items():
            if meant.isdisjoint(routine.name for routine in self.recorded):
                raise UnknownRoutine(
                    f"{name} runs in every process by itself (process scope): there is nothing to "
                    "run by hand or to wait for."
                )
        wanted = set[str]().union(*matched.values())
        return [routine for routine in self.recorded if routine.name in wanted]

    def with_predecessors(self, routines: Iterable[Routine]) -> list[Routine]:
        """Return these routines and all that must be done before them, in order."""
        wanted: set[str] = set()
        unseen = list(routines)
        while unseen:
            routine = unseen.pop()
            if routine.name not in wanted:
                wanted.add(routine.name)
                unseen.extend(self.predecessors(routine))
        return [routine for routine in self.recorded if routine.name in wanted]


class Site:
    """State of this process about its routines. A test may put another one in its place."""

    def __init__(self) -> None:
        #: Every routine, in the order of declaration.
        self.declared: list[Routine] = []
        #: The registry that :func:`load` returned last, and the apps and routines that it is of.
        self.registry: Registry | None = None
        self.basis: tuple[list[str], list[Routine]] = [], []
        #: Names of the in-memory routines that ran in this process, or in the one that forked it.
        self.ran: set[str] = set()
        #: True if everything was done as this process, or the one that forked it, started.
        self.was_complete = False
        #: True once everything was done.
        self.is_ready = False


site = Site()
#: Names of all apps whose routines were imported.
_seen: set[str] = set()


def match(names: Iterable[str], labels: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the names of routines that each name means.

    Args:
        names: names of routines, app labels, or shell patterns such as ``shop.load_*``.
        labels: names of routines, each with the label of its app, or empty.

    Raises:
        UnknownRoutine: a name means nothing.

    """
    matched = {
        name: {
            routine
            for routine, label in labels.items()
            if name and (name in (routine, label) or fnmatchcase(routine, name))
        }
        for name in names
    }
    if unknown := [name for name, meant in matched.items() if not meant]:
        raise UnknownRoutine(
            f"No routine is named {', '.join(map(repr, unknown))}, and no app with routines. "
            + _alternatives(unknown, labels)
        )
    return matched


def _alternatives(unknown: Sequence[str], labels: Mapping[str, str]) -> str:
    """Return what may have been meant, and what there is."""
    known = sorted({*labels, *labels.values()} - {""})
    close = [each for each in known if each.rpartition(".")[2] in unknown]  # without its app
    for name in unknown:
        if not any(wildcard in name for wildcard in "*?["):
            close += get_close_matches(name, known, 3, 0.75)
    listed = [*labels][:_LISTED]
    more = f", and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    meant = f"Did you mean {' or '.join(dict.fromkeys(close))}? " if close else ""
    return f"{meant}Routines here: {', '.join(listed) or 'none'}{more}."


def load() -> Registry:
    """Return the registry of all routines, after importing ``routines.py`` of each app.

    Tests may install another app for a while: its routines are there for as long as it is.

    Raises:
        RoutineError: the routines cannot work together.

    """
    discover()
    installed, declared = [app.name for app in apps.get_app_configs()], [*site.declared]
    if site.registry is None or site.basis != (installed, declared):
        gone = _seen - {*installed}
        site.registry = Registry(routine for routine in declared if not _is_of(routine, gone))
        site.basis = installed, declared
    return site.registry


def discover() -> None:
    """Import ``routines.py`` of each installed app, once in a process."""
    for app in apps.get_app_configs():
        if app.name not in _seen:
            if app.module is not None and module_has_submodule(app.module, MODULE):
                import_module(f"{app.name}.{MODULE}")
            _seen.add(app.name)


def _is_of(routine: Routine, names: Iterable[str]) -> bool:
    """Return True if an app of these names declares a routine, and no installed app has it."""
    module = routine.function.__module__
    return any(f"{module}.".startswith(f"{name}.") for name in names) and not _app_label(routine)


def _app_label(routine: Routine) -> str:
    app = apps.get_containing_app_config(routine.function.__module__)
    return app.label if app else ""


def _renamed(by_name: dict[str, Routine]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for name, old in ((each.name, old) for each in by_name.values() for old in each.renamed_from):
        if old in by_name:
            raise RoutineError(
                f"Routine {name!r} is renamed_from {old!r}, which this code declares: "
                f"{_place(by_name[old])}. Remove one of the two: a routine that stays was not "
                "renamed."
            )
        if old in renamed:
            raise RoutineError(
                f"Routines {renamed[old]!r} and {name!r} are both renamed_from {old!r}. Remove it "
                "from the one that does other work."
            )
        renamed[old] = name
    return renamed


def _predecessor(routine: Routine, predecessor: Routine | None, other: Routine | str) -> Routine:
    if predecessor is None:
        raise RoutineError(
            f"Routine {routine.name!r} comes after {str(other)!r}, which does not exist. "
            "Correct after=, or install the app that declares it."
        )
    if routine.scope == "process" and predecessor.scope != "process":
        raise RoutineError(
            f"Routine {routine.name!r} runs in every process, so it cannot wait for "
            f"{predecessor.name!r}, which a database records. Remove it from after=."
        )
    if routine.startup and not predecessor.startup:
        raise RoutineError(
            f"Routine {routine.name!r} runs at start-up, but comes after {predecessor.name!r}, "
            "which has startup=False. Give both the same startup=."
        )
    return predecessor


def _ordered(by_name: dict[str, Routine], after: dict[str, list[Routine]]) -> Iterator[Routine]:
    before = {name: {routine.name for routine in after[name]} for name in by_name}
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        raise RoutineError(
            "Routines come after each other in a circle: "
            f"{' -> '.join(reversed(error.args[1]))}. Remove one after=."
        ) from None
    left = dict(by_name)
    while left:
        first = next(name for name in left if left.keys().isdisjoint(before[name]))
        yield left.pop(first)


def _place(routine: Routine) -> str:
    return f"{routine.function.__module__}.{routine.function.__qualname__}"
