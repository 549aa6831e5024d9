"""Go through the items of an attempt, and commit each batch with the cursor behind it."""

import time
from contextlib import closing
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from django.db import DatabaseError, transaction

from once import signals
from once.engine import body, shutdown
from once.record import anchors, recorder
from once.routines.batches import START, Batch, Batches, Progress, batches

if TYPE_CHECKING:
    from once.engine.attempt import Work

__all__ = ["go_through"]


def go_through(work: "Work") -> None:
    """Commit batch after batch, from where earlier attempts ended, and at last the completion."""
    with work.projects_own():
        made = batches(work.routine)
    with closing(made) as found:

        def resume() -> Progress:
            # In one transaction: an address may lead to another server from one to the next.
            before = recorder.progress(work.attempt)
            total = _total(work, found, before)
            start = replace(before, cursor=before.cursor or START, total=total)
            recorder.resume(work.attempt, start)
            anchors.move(work.attempt)
            return start

        start = work.transact(resume, may_repeat=True)
        work.lock.confirm()
        _go_through(work, found, start.cursor)


def _total(work: "Work", found: Batches, before: Progress) -> int | None:
    """Return the number of items, or ``None`` if counting takes too long."""
    try:
        with transaction.atomic(using=work.here.using):
            _limit_statements(work)
            return found.total(before)
    except DatabaseError as error:
        if work.here.is_lost(error):
            raise
        return None


def _go_through(work: "Work", found: Batches, cursor: str) -> None:
    began = monotonic()
    seconds = 0.0
    while True:
        batch = _commit_batch(work, found, cursor)
        cursor = batch.cursor
        work.attempt.processed += batch.count
        before, seconds = seconds, monotonic() - began
        signals.progressed.send_robust(
            work.routine, attempt=work.attempt, seconds=seconds, lap=seconds - before
        )
        if batch.is_last:
            return
        with shutdown.heeded():
            if work.routine.rest:
                work.here.connection.close()  # which a server may end while it is idle
                time.sleep(work.routine.rest)
        work.lock.check()


def _commit_batch(work: "Work", found: Batches, cursor: str) -> Batch:
    """Commit the effects of one batch and the cursor in one transaction."""

    def commit() -> Batch:
        _limit_statements(work)
        with work.projects_own():
            batch = found.after(cursor)
            if batch.count:
                work.is_begun = True
                body.call(work.routine, work.run, batch.items)
        recorder.advance(work.attempt, cursor, batch.cursor, batch.count)
        if batch.is_last:
            recorder.complete(work.attempt)
        return batch

    return work.transact(commit, may_repeat=work.may_repeat and found.is_repeatable)


def _limit_statements(work: "Work") -> None:
    if work.routine.statement_timeout is not None:
        work.here.limit_statements(work.routine.statement_timeout)
