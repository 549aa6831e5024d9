"""Go through the items of an attempt, and commit each batch with the cursor behind it.

A batch is a work transaction: its items are found by the cursor, the body is called, the cursor
moves. Where items may fail, a batch that fails is halved, down to the item.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from django.db import DatabaseError, Error, transaction

from once import signals
from once.engine import body
from once.engine.pacing import Pacing
from once.exceptions import BatchError, BodyError, OnceError
from once.record import anchors, failed_items, history, recorder
from once.routines.batches import START, Batch, Batches, Progress, batches
from once.text import one_line, whole, written

if TYPE_CHECKING:
    from once.engine.attempt import Work

__all__ = ["go_through", "try_failed_items"]

T = TypeVar("T")


def go_through(work: "Work") -> None:
    """Commit batch after batch, from where earlier attempts ended, and at last the completion.

    Raises:
        Paused: a person paused the routine.

    """
    with _opened(work) as passage:
        passage.go()


def try_failed_items(work: "Work") -> None:
    """Call the body with each failed item alone, and record those of which it returns as done.

    Raises:
        BatchError: items failed again.
        Paused: a person paused the routine.

    """
    with _opened(work) as passage:
        passage.try_failed_items()


@contextmanager
def _opened(work: "Work") -> Iterator["_Passage"]:
    with work.projects_own():
        items = batches(work.routine)
    passage = _Passage(work=work, items=items, pacing=Pacing(work))
    with closing(passage):
        yield passage


@dataclass(slots=True, kw_only=True)
class _Passage:
    """A way through the items, from the last committed batch on."""

    work: "Work"
    items: Batches
    pacing: Pacing
    #: All before it is committed.
    cursor: str = START
    #: Sizes of the parts of a batch that failed, the next part last.
    _parts: list[int] = field(default_factory=list)
    #: The batch that the body was called with in the transaction in hand.
    _batch: Batch | None = None

    def close(self) -> None:
        self.items.close()

    def go(self) -> None:
        work = self.work
        self._begin()
        work.lock.confirm()
        began, seconds = monotonic(), 0.0
        while True:
            batch = self._next()
            self.cursor = batch.cursor
            work.attempt.processed += batch.count
            before, seconds = seconds, monotonic() - began
            signals.progressed.send_robust(
                work.routine, attempt=work.attempt, seconds=seconds, lap=seconds - before
            )
            if batch.is_last:
                return
            self.pacing.rest()

    def try_failed_items(self) -> None:
        work = self.work
        self._begin()
        work.lock.confirm()
        again: list[str] = []
        for failed in failed_items.listed(work.here.using, work.routine):
            self.pacing.heed()
            self.pacing.wait()
            try:
                self._transact(partial(self._do_failed, failed.item))
            except Exception as error:
                if not self._is_of_items(error):
                    raise
                self._reopen()
                self._record(failed.item, error)
                again.append(f"Item {failed.item}: {one_line(error)}")
        if again:
            raise BatchError(f"{len(again)} items failed again. {again[0].rstrip('.')}")
        work.transact(partial(recorder.succeed, work.attempt), may_repeat=True)

    def _begin(self) -> None:
        """Go on where earlier attempts ended, at the pace that is wanted."""

        def resume() -> Progress:
            # In one transaction: an address may lead to another server from one to the next.
            before = history.progress(self.work.attempt)
            total = self._total(before)
            start = replace(before, cursor=before.cursor or START, total=total)
            recorder.resume(self.work.attempt, start)
            anchors.move(self.work.attempt)
            self.pacing.heed()
            return start

        self.cursor = self.work.transact(resume, may_repeat=True).cursor
        self.pacing.wait()

    def _total(self, before: Progress) -> int | None:
        """Return the number of items, or ``None`` if counting takes too long."""
        try:
            with transaction.atomic(using=self.work.here.using):
                self._limit_statements()
                return self.items.total(before)
        except DatabaseError as error:
            if self.work.here.is_lost(error):
                raise
            return None

    def _next(self) -> Batch:
        """Commit the next batch, or leave behind the item that is all of it and fails."""
        while True:
            part = self._parts.pop() if self._parts else None
            began = monotonic()
            try:
                batch = self._transact(partial(self._commit, part))
            except Exception as error:
                failed = self._batch
                if failed is None or not self._is_of_items(error):
                    raise
                self._reopen()
                if failed.count == 1:
                    self._record(failed.first, error, behind=failed)
                    return failed
                half = failed.count // 2
                self._parts += [failed.count - half, half]
            else:
                if part is None and batch.count == self.pacing.size:  # a shorter one is the last
                    self.pacing.took(batch.count, monotonic() - began)
                return batch

    def _transact(self, function: Callable[[], T]) -> T:
        self._batch = None
        may_repeat = self.work.may_repeat and self.items.is_repeatable
        try:
            return self.work.transact(function, may_repeat=may_repeat)
        except Exception:
            if self._batch is not None:
                self.work.place = self._batch.place
            raise

    def _commit(self, part: int | None) -> Batch:
        """Have a batch done, of so many items or at the pace that is wanted; move the cursor."""
        self.pacing.heed()
        self._limit_statements()
        with self.work.projects_own():
            batch = self.items.after(self.cursor, part or self.pacing.size)
            self._call(batch)
        recorder.advance(self.work.attempt, self.cursor, batch.cursor, batch.count)
        if batch.is_last:
            recorder.complete(self.work.attempt)
        return batch

    def _do_failed(self, item: str) -> None:
        self._limit_statements()
        with self.work.projects_own():
            self._call(self.items.only(item))
        if not failed_items.remove(self.work.attempt, item):
            raise BodyError(f"Item {item} is recorded as failed no more: its row was deleted.")

    def _call(self, batch: Batch) -> None:
        if batch.count:
            self._batch, self.work.is_begun = batch, True
            body.call(self.work.routine, self.work.run, batch.items)

    def _limit_statements(self) -> None:
        if self.work.routine.statement_timeout is not None:
            self.work.here.limit_statements(self.work.routine.statement_timeout)

    def _is_of_items(self, error: Exception) -> bool:
        """True if the body may fail again for the same items, and for these alone."""
        here = self.work.here
        if not self.work.routine.max_errors or error is not self.work.of_project:
            return False
        if not isinstance(error, Error):
            return not isinstance(error, OnceError)
        return not (here.is_in_the_way(error) or here.is_lost(error) or here.is_cancelled(error))

    def _record(self, item: str, error: Exception, *, behind: Batch | None = None) -> None:
        """Record that an item failed, and move the cursor behind it."""
        work, most = self.work, self.work.routine.max_errors
        work.is_begun = False  # what it did is undone

        def record(text: str) -> None:
            if not failed_items.add(work.attempt, item, text, most):
                raise BatchError(
                    f"Item {item} failed, and {most} items had before, which is all that "
                    f"max_errors= admits. See `manage.py once items {work.routine}`. "
                    f"{one_line(error)}"
                ) from error
            if behind is not None:
                recorder.advance(work.attempt, self.cursor, behind.cursor, behind.count)
                if behind.is_last:
                    recorder.complete(work.attempt)

        def transact(texts: dict[str, str]) -> None:
            work.transact(partial(record, texts["error"]), may_repeat=True)

        written(transact, {"error": whole(error)}, work.here.is_unwritable_text)
        work.place = ""

    def _reopen(self) -> None:
        """Have items that are not what they were come from a new call of ``over``."""
        if not self.items.is_repeatable:
            self.items.close()
            with self.work.projects_own():
                self.items = batches(self.work.routine)
