"""The failed items of a routine, for people and for programs."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from once.databases import database
from once.models import FailedItem
from once.record import failed_items, history
from once.routines.base import Routine
from once.status import text
from once.status.attempts import aware

#: Failed items that are shown at most.
LAST = 50


@dataclass(frozen=True)
class PastItem:
    """An item that failed."""

    row: FailedItem

    @property
    def failed_at(self) -> datetime:
        return aware(self.row, self.row.failed_at)

    @property
    def when(self) -> str:
        return text.moment(self.failed_at)

    @property
    def error_line(self) -> str:
        """The error without its traceback."""
        return self.row.error.partition("\n")[0]


def last(routine: Routine, most: int | None = LAST + 1) -> list[PastItem]:
    """Return the items that failed last: one more than are shown, if any.

    Raises:
        django.db.Error: the database cannot be read.

    """
    with database(routine.using).reading():
        if not history.is_installed(routine.using):
            return []
        return [PastItem(row) for row in failed_items.last(routine, most)]


def to_json(routine: Routine) -> dict[str, Any]:
    """Return a routine as ``once items --json`` prints it; its keys are a contract."""
    return {
        "name": routine.name,
        "database": routine.using,
        "version": routine.version,
        "failures": [item_to_json(each) for each in last(routine, None)],
    }


def item_to_json(failed: PastItem) -> dict[str, Any]:
    """Return a failed item as ``once items --json`` prints it."""
    return {
        "item": failed.row.item,
        "attempt": failed.row.number,
        "failed_at": failed.failed_at,
        "error": failed.row.error,
    }
