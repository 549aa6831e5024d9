"""Go through the items of an attempt, and commit each batch with the cursor behind it.

A batch is a work transaction: its items are found by the cursor, the body is called, the cursor
moves. Where items may fail, a batch that fails is halved, down to the item. The item is recorded as
failed in the transaction that moves the cursor behind it. Its row is deleted in the transaction of
the item's effects.
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
from once.exceptions import BatchError, OnceError
from once.models import Trigger
from once.record import anchors, failed_items, history, recorder
from once.routines.batches import START, Batch, Batches, Progress, batches
from once.text import of_body, one_line, whole, written

if TYPE_CHECKING:
    from once.engine.attempt import Work


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
    #: Items that failed in earlier attempts, as far as they may come again.
    _failed: list[str] = field(default_factory=list)
    #: Sizes of the parts of a batch that failed, the next part last. A part that fails if those
    #: before it did not has its size negated.
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
        again: list[tuple[str, Exception]] = []
        # In this order, because positions are gone through from the first on.
        for number, item in enumerate(sorted(self._failed, key=lambda item: (len(item), item))):
            if number:
                self.pacing.rest()
            try:
                self._transact(partial(self._do_failed, item))
            except Exception as error:
                if not self._is_of_items(error):
                    raise
                self._begin_anew()
                self._record(item, error)
                again.append((item, error))
        if again:
            item, first = again[0]
            raise BatchError(
                f"Of {len(self._failed)} failed items, {len(again)} failed again. Item {item}: "
                f"{one_line(first)}"
            ) from of_body(first)
        work.transact(partial(recorder.succeed, work.attempt), may_repeat=True)

    def _begin(self) -> None:
        """Go on where earlier attempts ended, at the pace that is wanted."""
        work, is_of_items = self.work, self.work.attempt.trigger == Trigger.ITEMS

        def resume() -> Progress:
            # In one transaction: an address may lead to another server from one to the next.
            before = history.progress(work.attempt)
            total = self._total(before)
            start = replace(before, cursor=before.cursor or START, total=total)
            recorder.resume(work.attempt, start)
            anchors.move(work.attempt)
            if is_of_items or work.routine.last_pass:
                self._failed = failed_items.names(work.attempt)
            self.pacing.heed()
            return start

        self.cursor = work.transact(resume, may_repeat=True).cursor
        self.items.left_out = set() if is_of_items else {*self._failed}
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
            part = self._parts.pop() if self._parts else 0
            if part < -1:
                self._halve(-part)
                continue
            began = monotonic()
            try:
                batch = self._transact(partial(self._commit, abs(part)))
            except Exception as error:
                failed = self._batch
                if failed is None or not self._is_of_items(error):
                    raise
                self._begin_anew()
                if self._parts:  # which may have no item that fails, now that this one has
                    self._parts[-1] = abs(self._parts[-1])
                if failed.count == 1:
                    self._record(failed.last, error, behind=failed)
                    return failed
                self._halve(failed.count)
            else:
                if not part and batch.count == self.pacing.size:  # a shorter one is the last
                    self.pacing.took(batch.count, monotonic() - began)
                return batch

    def _halve(self, size: int) -> None:
        self._parts += [size // 2 - size, size // 2]

    def _transact(self, function: Callable[[], T]) -> T:
        """Run a work transaction with a call of the body, and note the items of which it raises."""
        self._batch, self.work.place = None, ""
        may_repeat = self.work.may_repeat and self.items.is_repeatable
        try:
            return self.work.transact(function, may_repeat=may_repeat)
        except Exception:
            self.work.place = self._batch.place if self._batch else ""
            raise

    def _commit(self, part: int) -> Batch:
        """Have a batch done, of a part's size or at the pace that is wanted; move the cursor."""

        def read() -> Batch:
            batch = self.items.after(self.cursor, part or self.pacing.size)
            if batch.count < part and not self.items.is_repeatable:
                raise BatchError(
                    f"over= of {self.work.routine} returned items once, and fewer when it was "
                    "called again. Have it return the same items on every call, not an iterator."
                )
            return batch

        return self._call(read, self._advance)

    def _do_failed(self, item: str) -> None:
        """Call the body with a failed item, and delete the row of that."""

        def remove(_: Batch) -> None:
            if not failed_items.remove(self.work.attempt, item):
                raise BatchError(
                    f"Item {item} is not recorded as failed any more: its row was deleted. Run "
                    "this again."
                )

        self._call(lambda: self.items.only(item), remove)

    def _call(self, read: Callable[[], Batch], record: Callable[[Batch], None]) -> Batch:
        """Call the body with the batch that a function reads, and record that it is done."""
        self._batch = None
        self.pacing.heed()
        self._limit_statements()
        with self.work.projects_own():
            batch = read()
            if batch.count:
                self._batch, self.work.is_begun = batch, True
                body.call(self.work.routine, self.work.run, batch.items)
        with body.intact(self.work.here):
            record(batch)
        return batch

    def _advance(self, batch: Batch) -> None:
        attempt = self.work.attempt
        recorder.advance(attempt, self.cursor, batch.cursor, batch.count)
        if batch.is_last:
            self.work.failed_items = failed_items.count(attempt)
            recorder.complete(attempt)

    def _limit_statements(self) -> None:
        if self.work.routine.statement_timeout is not None:
            self.work.here.limit_statements(self.work.routine.statement_timeout)

    def _is_of_items(self, error: Exception) -> bool:
        """True if items may fail, and the body raised this error for the items in hand alone."""
        here, work = self.work.here, self.work
        may_fail = work.routine.max_errors or work.attempt.trigger == Trigger.ITEMS
        if not (may_fail and self._batch and error is work.of_project):
            return False
        if isinstance(error, OnceError):
            return False
        beneath: BaseException | None = error
        while beneath is not None:  # which the body may have wrapped in an error of its own
            if isinstance(beneath, Error) and (
                here.is_in_the_way(beneath) or here.is_lost(beneath) or here.is_cancelled(beneath)
            ):
                return False
            beneath = beneath.__cause__ or beneath.__context__
        return True

    def _record(self, item: str, error: Exception, *, behind: Batch | None = None) -> None:
        """Record that an item failed, and move the cursor behind it."""
        work, most = self.work, self.work.routine.max_errors

        def record(text: str) -> None:
            if not failed_items.add(work.attempt, item, text, most):
                raise BatchError(
                    f"Item {item} failed, after as many items as max_errors={most} admits. "
                    f"`manage.py once items {work.routine}` lists those. {one_line(error)}"
                ) from of_body(error)
            if behind is not None:
                self._advance(behind)

        def transact(texts: dict[str, str]) -> None:
            work.transact(partial(record, texts["error"]), may_repeat=True)

        written(transact, {"error": whole(error)}, work.here.is_unwritable_text)
        if work.routine.last_pass:
            self.items.left_out.add(item)

    def _begin_anew(self) -> None:
        """Go on after a call of the body that raised, and whose effects are undone.

        Because the body may have changed items that are no rows, they come from a new call of
        ``over``.
        """
        self.work.is_begun, self.work.place = False, ""
        if not self.items.is_repeatable:
            self.items.close()
            with self.work.projects_own():
                self.items = batches(self.work.routine)
