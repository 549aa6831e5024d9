"""Routines that are new beside records of routines that are gone: they may have been renamed."""

from collections.abc import Iterable
from dataclasses import dataclass

from once.routines.names import CALL, RESERVED
from once.routines.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """New routines of an app, beside the records of that app which this code does not have."""

    using: str
    #: Names of the new routines, and names that are recorded and gone.
    new: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def message(self) -> str:
        """The suspicion, and the remedy."""
        return f"{self.told} {self.remedy}"

    def of(self, name: str) -> str:
        """Return the message for the first new routine, and a short one for each further one."""
        if name == self.new[0]:
            return self.message
        return f"Like {self.new[0]}, it may have run as {', '.join(self.gone)}."

    @property
    def told(self) -> str:
        """The suspicion, as a sentence."""
        are, it = ("is", "it") if len(self.new) == 1 else ("are", "one of them")
        return (
            f"{', '.join(self.new)} {are} new and would run, while database {self.using!r} has a "
            f"record of {', '.join(self.gone)}, which this code does not have. If {it} was "
            "renamed or moved, its effects exist already."
        )

    @property
    def remedy(self) -> str:
        """The next step, for each case."""
        name = self.new[0] if len(self.new) == 1 else "NAME"
        return (
            f'Renamed: say so, @routine(renamed_from="{self.gone[0]}"), or pin the old name, '
            f'@routine(name="{self.gone[0]}"), or record the new one by `manage.py once run --fake '
            f"{name}`. Not renamed: nothing to do, and this is not said any more once it ran."
        )


def suspicions(
    using: str, new: Iterable[str], registry: Registry, recorded: Iterable[str]
) -> list[Suspicion]:
    """Return a suspicion for each app that has both: so each record is told of once.

    ``new`` are routines that were never tried in the database, ``recorded`` those that it knows.
    """
    labels = registry.labels
    known = {registry.current(name) for name in recorded}
    names = known - {*labels}
    gone = sorted(name for name in names if not name.startswith((CALL, RESERVED)))
    by_app: dict[str, list[str]] = {}
    for name in new:
        if not name.startswith(CALL) and name not in known:
            by_app.setdefault(labels.get(name) or _label(name), []).append(name)
    return [
        Suspicion(using=using, new=tuple(names), gone=others)
        for label, names in by_app.items()
        if (others := tuple(name for name in gone if _label(name) == label))
    ]


def _label(name: str) -> str:
    return name.partition(".")[0]
