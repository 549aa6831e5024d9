"""The failed items of a routine, for people and for programs."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from once.databases import database
from once.record import failed_items, history
from once.routines.base import Routine
from once.status import text

#: Failed items that are shown at most.
LAST = 50


@dataclass(frozen=True)
class PastItem:
    """An item that failed, as JSON shows it."""

    item: str
    #: Number of the attempt in which it failed last.
    attempt: int
    failed_at: datetime
    error: str

    @property
    def when(self) -> str:
        return text.moment(self.failed_at)

    @property
    def error_line(self) -> str:
        """The error without its traceback."""
        return self.error.partition("\n")[0]


def last(routine: Routine, most: int | None = LAST + 1) -> list[PastItem]:
    """Return the items that failed last: one more than are shown, if any.

    Raises:
        django.db.Error: the database cannot be read.

    """
    here = database(routine.using)
    with here.reading():
        if not history.is_installed(routine.using):
            return []
        return [
            PastItem(row.item, row.number, here.aware(row.failed_at), row.error)
            for row in failed_items.last(routine, most)
        ]


def to_json(routine: Routine) -> dict[str, Any]:
    """Return a routine as ``once items --json`` prints it; its keys are a contract."""
    return {
        "name": routine.name,
        "database": routine.using,
        "version": routine.version,
        "failures": [asdict(each) for each in last(routine, None)],
    }
