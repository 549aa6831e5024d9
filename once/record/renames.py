"""Carry over what is recorded under an old name of a routine to its present name.

It is the work of an attempt at the old name, of version ``TOMBSTONE``. The completion that this
attempt records is the tombstone, for which an older release finds its routine superseded.
"""

from typing import Any

from django.db import IntegrityError
from django.db.models import F, Model, QuerySet

from once.exceptions import AttemptLost, OnceError
from once.models import Anchor, Attempt, Completion, FailedItem, Now, State, Trigger, Wish
from once.record import history
from once.routines.base import Routine
from once.routines.names import TOMBSTONE

#: Rows that one statement moves.
_CHUNK = 500


def carry(attempt: Attempt, routine: Routine) -> None:
    """Move what is recorded under an attempt's name to a routine, in the work transaction in hand.

    Because all predecessors of the attempt are fenced, no other process adds to it meanwhile. What
    the routine has under its present name stays, and what is moved there counts as later.

    Raises:
        AttemptLost: another process claimed the next attempt under the present name, or gives the
            routine a further name.
        OnceError: a newer release gave it a further name.

    """
    using, old, new = routine.using, attempt.routine, routine.name
    attempts, anchors, completions, items, wishes = moved_rows = [
        _rows(model, using, old).filter(version__lt=TOMBSTONE)
        for model in (Attempt, Anchor, Completion, FailedItem, Wish)
    ]
    if not any(rows.exists() for rows in moved_rows):
        return
    # So the next number is above all that either name has given away.
    moved: dict[str, Any] = {"routine": new, "number": F("number") + _claim(attempt, routine)}
    _update(attempts, **moved)
    _delete_doubles(anchors, _rows(Anchor, using, new))
    _update(anchors, **moved)
    _delete_doubles(_rows(Completion, using, new), completions)
    _update(completions, routine=new)
    _delete_doubles(items, _rows(FailedItem, using, new), "item")
    _update(items, **moved)
    _move_wishes(wishes, new, _rows(Wish, using, new))


def _move_wishes(old: "QuerySet[Any]", name: str, new: "QuerySet[Any]") -> None:
    """Move wishes, of which the last one under the present name stays the last.

    A pause under the old name ends by a pause or a resumption under the present one alone. No run
    is wanted any more, because the attempts get new numbers.
    """
    last = new.order_by("number").last()
    if last is None:
        _update(old, routine=name)
        return
    before = old.order_by("number").last()
    if before is None:
        return
    is_told = new.filter(kind__in=(Wish.Kind.PAUSE, Wish.Kind.RESUME)).exists()
    _update(old, routine=name, number=F("number") + last.number)
    last.pk, last.number = None, last.number + before.number + 1
    last.is_paused = last.is_paused or (before.is_paused and not is_told)
    last.save(using=new.db, force_insert=True)


def _claim(attempt: Attempt, routine: Routine) -> int:
    """Take the next number of the present name, so that no process claims it; return it.

    A process that read the record before finds the number taken, and reads again. The row is of
    version 0, so that it is no attempt at any completion.
    """
    upcoming = history.next_attempt(routine)
    row = Attempt(
        routine=routine.name,
        number=upcoming.number,
        version=0,
        key=upcoming.key,
        state=State.SUCCEEDED,
        trigger=Trigger.RENAME,
        reason=f"from {attempt.routine}",
        host=attempt.host,
        pid=attempt.pid,
        release=attempt.release,
        finished_at=Now(),
    )
    try:
        row.save(using=routine.using, force_insert=True)
    except IntegrityError as error:
        raise AttemptLost(f"Another process claimed {row}") from error
    # Only now, because nothing else can begin to move this record any more.
    further: dict[str, Any] = {"version": TOMBSTONE}
    running = _rows(Attempt, routine.using, routine.name).filter(state=State.RUNNING, **further)
    buried = _rows(Completion, routine.using, routine.name).filter(**further)
    if running.exists():
        raise AttemptLost(f"A newer release gives {routine.name} a further name just now")
    if buried.exists():
        raise OnceError(f"A newer release gave {routine.name} a further name.")
    return upcoming.number


def _rows(model: type[Model], using: str, name: str) -> "QuerySet[Any]":
    return model._default_manager.using(using).filter(routine=name)


def _update(rows: "QuerySet[Any]", **values: Any) -> None:
    # By their keys, because MySQL waits for each row that it comes by in a search.
    pks = list(rows.values_list("pk", flat=True))
    for start in range(0, len(pks), _CHUNK):
        rows.model._default_manager.using(rows.db).filter(
            pk__in=pks[start : start + _CHUNK]
        ).update(**values)


def _delete_doubles(of: "QuerySet[Any]", doubled: "QuerySet[Any]", *more: str) -> None:
    """Delete rows of the second set that are for the same completions as rows of the first.

    Only those that have the same values in ``more`` columns as well.
    """
    same = ("version", "scope_key", *more)
    kept = {*of.values_list(*same)}
    for pk, *values in list(doubled.values_list("pk", *same)):
        if (*values,) in kept:
            doubled.model._default_manager.using(doubled.db).filter(pk=pk)._raw_delete(doubled.db)
