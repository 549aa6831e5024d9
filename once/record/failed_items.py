"""Items that failed, and behind which their routine went on."""

from collections.abc import Iterable

from django.db.models import Count, QuerySet

from once.databases import database
from once.models import Attempt, FailedItem, Now
from once.routines.base import Routine

__all__ = ["add", "counts", "forget", "listed", "remove"]

_COMPLETION = ("routine", "version", "scope_key")


def add(attempt: Attempt, item: str, error: str, most: int) -> bool:
    """Record, in the work transaction in hand, that an item failed.

    Return ``False``, and record nothing, if that would be more failed items than ``most``.
    """
    rows = _of(attempt)
    values = {"number": attempt.number, "error": error, "failed_at": Now()}
    if rows.filter(item=item).update(**values):
        return True
    if rows.count() >= most:
        return False
    completion = {name: getattr(attempt, name) for name in _COMPLETION}
    del values["failed_at"]  # which the database fills in
    FailedItem(**completion, item=item, **values).save(using=attempt._state.db, force_insert=True)
    return True


def remove(attempt: Attempt, item: str) -> bool:
    """Record, in the transaction of its effects, that an item is done; ``False`` if it was."""
    return bool(_of(attempt).filter(item=item)._raw_delete(attempt._state.db))


def forget(attempt: Attempt) -> None:
    """Delete what failed at an attempt's completion, which begins from the start."""
    _of(attempt)._raw_delete(attempt._state.db)


def listed(using: str, routine: Routine) -> list[FailedItem]:
    """Return the failed items at a routine's completion, in the order in which they failed."""
    rows = FailedItem.objects.using(using).filter(
        routine=routine.name, version=routine.version, scope_key=routine.scope_key
    )
    with database(using).statements():
        return list(rows.order_by("pk"))


def counts(routines: Iterable[Routine]) -> dict[str, int]:
    """Return how many items failed at the completion of each routine that has any, by name.

    Only a routine with ``max_errors`` may have any: where there is none, no database is asked.
    """
    found: dict[str, int] = {}
    wanted = [each for each in routines if each.max_errors]
    for using in {each.using for each in wanted}:
        here = {each.name: each for each in wanted if each.using == using}
        rows = FailedItem.objects.using(using).filter(routine__in=here)
        with database(using).statements():
            for name, *completion, count in rows.values_list(*_COMPLETION).annotate(Count("pk")):
                if completion == [here[name].version, here[name].scope_key]:
                    found[name] = count
    return found


def _of(attempt: Attempt) -> "QuerySet[FailedItem]":
    completion = {name: getattr(attempt, name) for name in _COMPLETION}
    return FailedItem.objects.using(attempt._state.db).filter(**completion)
