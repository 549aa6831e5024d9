"""Items that failed, and behind which their routine went on."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Count, QuerySet

from once import words
from once.databases import database
from once.exceptions import BatchError
from once.models import Attempt, FailedItem, Now
from once.routines.base import Routine

_COMPLETION = ("routine", "version", "scope_key")
_ITEM: Any = FailedItem._meta.get_field("item")


def add(attempt: Attempt, item: str, error: str, most: int) -> bool:
    """Record, in the work transaction in hand, that an item failed.

    Return ``False``, and record nothing, if that would be more failed items than ``most``.

    Raises:
        BatchError: the key of the item is too long to be recorded.

    """
    if len(item) > _ITEM.max_length:
        raise BatchError(
            f"Item {item:.50}... failed, whose key has {len(item)} characters: a failed item is "
            f"recorded by {_ITEM.max_length} at most. Order over= by a shorter field, or fix the "
            "item."
        )
    rows = _of(attempt)
    if rows.filter(item=item).update(number=attempt.number, error=error, failed_at=Now()):
        return True
    if rows.count() >= most:
        return False
    completion = {name: getattr(attempt, name) for name in _COMPLETION}
    row = FailedItem(**completion, item=item, number=attempt.number, error=error)
    row.save(using=attempt._state.db, force_insert=True)
    return True


def remove(attempt: Attempt, item: str) -> bool:
    """Delete the row of an item, in the transaction of its effects; ``False`` if it has none."""
    return bool(_of(attempt).filter(item=item)._raw_delete(attempt._state.db))


def forget(attempt: Attempt) -> None:
    """Delete what failed at an attempt's completion, which a person decided anew about."""
    _of(attempt)._raw_delete(attempt._state.db)


def names(of: Attempt | Routine) -> list[str]:
    """Return the failed items at a completion, in the order in which they failed first."""
    return list(_of(of).order_by("pk").values_list("item", flat=True))


def count(of: Attempt | Routine) -> int:
    """Return how many items failed at a completion."""
    return _of(of).count()


def last(routine: Routine, most: int | None) -> list[FailedItem]:
    """Return the items at a routine's completion that failed last, in the order of their attempts.

    Raises:
        django.db.Error: the database cannot be read, or has no tables of this package.

    """
    with database(routine.using).statements():
        return [*_of(routine).order_by("-number", "-pk")[:most]][::-1]


def counts(routines: Iterable[Routine]) -> dict[str, int]:
    """Return how many items failed at the completion of each routine that has any, by name.

    Only a batched routine may have any: where there is none, no database is asked.
    """
    found: dict[str, int] = {}
    batched = [each for each in routines if each.over is not None]
    for using in {each.using for each in batched}:
        # Rows that are not carried over yet from an old name count as well.
        here = {
            name: each
            for each in batched
            if each.using == using
            for name in (each.name, *each.renamed_from)
        }
        rows = FailedItem.objects.using(using).filter(routine__in=here)
        with database(using).statements():
            for name, *completion, number in rows.values_list(*_COMPLETION).annotate(Count("pk")):
                of = here[name]
                if completion == [of.version, of.scope_key]:
                    found[of.name] = found.get(of.name, 0) + number
    return found


def explain(name: str, number: int) -> str:
    """Say how many items of a routine failed, and what to do."""
    return words.ngettext(
        "{number} item failed: `manage.py once items {name}` lists what to fix. Then `manage.py "
        "once run --failed-items {name}` tries again.",
        "{number} items failed: `manage.py once items {name}` lists what to fix. Then `manage.py "
        "once run --failed-items {name}` tries again.",
        number,
    ).format(number=words.number(number), name=name)


def _of(of: Attempt | Routine) -> "QuerySet[FailedItem]":
    using = of.using if isinstance(of, Routine) else of._state.db
    names = (of.name, *of.renamed_from) if isinstance(of, Routine) else (of.routine,)
    rows = FailedItem.objects.using(using).filter(routine__in=names)
    return rows.filter(version=of.version, scope_key=of.scope_key)
