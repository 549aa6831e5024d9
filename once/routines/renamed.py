"""Routines that are new beside records of routines that are gone: they may have been renamed."""

from collections.abc import Iterable
from dataclasses import dataclass

from once.routines.names import CALL, RESERVED
from once.routines.registry import Registry
from once.words import gettext, ngettext


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
        like = gettext("Like {}, it may have run as {}.")
        return like.format(self.new[0], ", ".join(self.gone))

    @property
    def told(self) -> str:
        """The suspicion, as a sentence."""
        return ngettext(
            "{new} is new and would run, while database {using!r} has a record of {gone}, which "
            "this code does not have. If it was renamed or moved, its effects exist already.",
            "{new} are new and would run, while database {using!r} has a record of {gone}, which "
            "this code does not have. If one of them was renamed or moved, its effects exist "
            "already.",
            len(self.new),
        ).format(new=", ".join(self.new), using=self.using, gone=", ".join(self.gone))

    @property
    def remedy(self) -> str:
        """The next step, for each case."""
        name = self.new[0] if len(self.new) == 1 else "NAME"
        return gettext(
            'Renamed: say so, @routine(renamed_from="{old}"), or pin the old name, '
            '@routine(name="{old}"), or record the new one by `manage.py once run --fake {new}`. '
            "Not renamed: nothing to do, and this is not said any more once it ran."
        ).format(old=self.gone[0], new=name)


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
