"""Do the rows that old code wrote after a routine was done, before a migration forbids them.

All but a few are done before the migration's transaction, each batch in its own. So little is left
to do while that transaction keeps other sessions from the table.
"""

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from once.databases import Database, database
from once.engine import body
from once.exceptions import MigrationFailed
from once.record import failed_items
from once.routines.base import Routine, Run
from once.routines.batches import START, batches

#: Batches that a migration does in its own transaction, at most.
_BATCHES = 10


def catch_up(routine: Routine, transact: Callable[[Callable[[], int]], int]) -> None:
    """Do the rows that there are now, but for less than a batch, while old code may write more.

    Writers wait for a batch at a time. Because its rows are read under that lock, no two processes
    do the same row, whatever lock they migrate under.

    Args:
        routine: bound to the models that the migration finds.
        transact: calls a function as a part of the migration, before its transaction.

    """
    if not _has_last_pass(routine):
        return
    rows = transact(lambda: _items(routine).count())
    for _ in range(rows // routine.batch_size):
        transact(partial(_do_batch, routine))


def finish(routine: Routine) -> None:
    """Do what is left, in the migration's transaction, with no other session at the table.

    Raises:
        MigrationFailed: after ten batches there are still rows to do.

    """
    if not _has_last_pass(routine):
        return
    here = database(routine.using)
    with transaction.atomic(using=here.using):  # for a migration that is not atomic
        # Because the operations that follow lock out readers, too: a reader that comes to write
        # would wait for this transaction, and this one for the reader.
        here.lock_table(_items(routine).model._meta.db_table, alone=True)
        for _ in range(_BATCHES):
            if not _do_next(routine, here):
                # Because PostgreSQL alters no table for which deferred checks are pending.
                here.connection.check_constraints()
                return
    raise MigrationFailed(
        f"After {_BATCHES} batches {routine.name} still finds rows to do, under a lock of their "
        "table. See that its body does what over= asks for, and that no old code is left that "
        "writes such rows; then migrate again."
    )


def _has_last_pass(routine: Routine) -> bool:
    # Because what a migration did cannot be undone elsewhere, it must not wait for writers there.
    features = database(routine.using).connection.features
    return routine.last_pass and features.can_rollback_ddl


def _do_batch(routine: Routine) -> int:
    here = database(routine.using)
    with transaction.atomic(using=here.using):
        here.lock_table(_items(routine).model._meta.db_table)
        return _do_next(routine, here)


def _do_next(routine: Routine, here: Database) -> int:
    """Call the body on the next rows, but for those that failed; return their number."""
    items = batches(routine)
    items.left_out |= {*failed_items.names(routine)}
    batch = items.after(START, routine.batch_size)
    if batch.count:
        # Because the migration is the record of it, this is no attempt, and has no number.
        run = Run(using=here.using, attempt=0, key=uuid.uuid4().hex, check=lambda: None)
        body.call_alone(routine, run, batch.items)
    return batch.count


def _items(routine: Routine) -> QuerySet[Any]:
    items: QuerySet[Any] = routine.items().using(routine.using)
    return items
