"""What an attempt does once it may: three ways to commit effects and the record of them."""

import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from time import monotonic

from django.db import DatabaseError, Error, transaction

from once import body, interruption, ledger, signals
from once.base import Routine
from once.batches import START, Batch, Batches, batches
from once.databases import Database
from once.exceptions import AttemptLost, BatchError
from once.guards import Guard
from once.ledger import Progress
from once.models import Attempt
from once.run import Run
from once.text import one_line

__all__ = ["Work"]

#: How often one attempt repeats a transaction in whose way another one was.
_REPEATS = 10


@dataclass(slots=True, kw_only=True)
class Work:
    """One attempt at one routine, by the holder of the guard."""

    routine: Routine
    attempt: Attempt
    here: Database
    guard: Guard
    #: Seconds for which the database may be out of reach while outside effects are recorded.
    patience: float = 0.0
    #: Whether the body may be called again where another transaction was in its way.
    may_repeat: bool = True
    #: Whether earlier attempts at the same completion went through batches.
    was_batched: bool = False
    #: Whether a body was called whose effects are not committed, or not recorded.
    is_begun: bool = field(default=False, init=False)
    #: The first error of a hook that ran after a commit.
    _afterwards: Exception | None = field(default=None, init=False)

    def do(self) -> None:
        """Call the body and record its effects, in the way of the routine's kind.

        What a body raises is raised, and what its ``on_commit`` hooks raise, at the end.

        Raises:
            AttemptLost: another process took over; nothing is committed any more.
            GuardLost: another process may have taken over.
            BodyError: the body broke the transaction that its record belongs to.
            BatchError: what the routine is called for cannot be gone through.

        """
        ways = {"atomic": self._atomic, "batched": self._batched, "external": self._external}
        self._end(ways[self.routine.kind])

    def fake(self) -> None:
        """Record the routine as done, and call no body."""
        self._end(lambda: self._transact(lambda: ledger.complete(self.attempt), may_repeat=True))

    def reset(self) -> None:
        """Make the routine pending again."""
        start = START if self.routine.kind == "batched" else ""
        self._end(
            lambda: self._transact(lambda: ledger.undo(self.attempt, start=start), may_repeat=True)
        )

    def _end(self, way: Callable[[], None]) -> None:
        try:
            way()
        except BaseException as error:
            if self._afterwards is not None:
                error.add_note(f"Before that, after a commit: {one_line(self._afterwards)}")
            raise
        if self._afterwards is not None:
            raise self._afterwards

    def _atomic(self) -> None:
        self._refuse_batches()

        def work() -> None:
            self.guard.confirm()
            self.is_begun = True
            body.call(self.routine, self._run)
            ledger.complete(self.attempt)

        self._transact(work, may_repeat=self.may_repeat)

    def _batched(self) -> None:
        before = ledger.progress(self.routine, self.attempt)
        with closing(batches(self.routine)) as found:
            total = self._total(found, before)
            start = replace(before, cursor=before.cursor or START, total=total)
            ledger.resume(self.attempt, start)
            self.guard.confirm()
            self._go_through(found, start)

    def _total(self, found: Batches, before: Progress) -> int | None:
        """How many items there are, or nothing where that takes too long to find out."""
        try:
            with transaction.atomic(using=self.here.using):
                self._limit_statements()
                return found.total(before)
        except DatabaseError as error:
            if self.here.is_lost(error):
                raise
            return None

    def _go_through(self, found: Batches, start: Progress) -> None:
        began = monotonic()
        seconds = 0.0
        cursor = start.cursor
        while True:
            batch = self._commit_batch(found, cursor)
            cursor = batch.cursor
            self.attempt.processed += len(batch.items)
            before, seconds = seconds, monotonic() - began
            signals.progressed.send_robust(
                self.routine, attempt=self.attempt, seconds=seconds, lap=seconds - before
            )
            if batch.is_last:
                return
            with interruption.heeded():
                if self.routine.pause:
                    self.here.connection.close()  # which a server may end while it is idle
                    time.sleep(self.routine.pause)
            self.guard.check()

    def _commit_batch(self, found: Batches, cursor: str) -> Batch:
        """One transaction for the effects of one batch and where to go on."""
        committed: list[Batch] = []

        def work() -> None:
            self._limit_statements()
            batch = found.after(cursor)
            if batch.items:
                self.is_begun = True
                body.call(self.routine, self._run, list(batch.items))  # which is the body's own
            ledger.advance(self.attempt, batch.cursor, len(batch.items))
            if batch.is_last:
                ledger.complete(self.attempt)
            committed[:] = [batch]

        self._transact(work, may_repeat=self.may_repeat and found.is_repeatable)
        return committed[0]

    def _limit_statements(self) -> None:
        if self.routine.statement_timeout is not None:
            self.here.limit_statements(self.routine.statement_timeout)

    def _external(self) -> None:
        self._refuse_batches()
        self.guard.ping()
        self.is_begun = True
        body.call_outside(self.routine, self._run)
        self._record_outside()

    def _refuse_batches(self) -> None:
        """Refuse to do at once what batches began."""
        if self.was_batched:
            raise BatchError(
                f"{self.routine} has no over= any more, but batches of this version were begun. "
                "Restore over=, or raise version= to begin anew."
            )

    def _record_outside(self) -> None:
        """Record effects that exist already. Only this is ever repeated, never the body."""

        def work() -> None:
            self.here.sync()
            ledger.complete(self.attempt)

        since = monotonic()
        while True:
            try:
                self._transact(work, may_repeat=True)
            except Error as error:
                may_pass = self.here.is_lost(error) or self.here.is_locked(error)
                if not may_pass or monotonic() - since > self.patience:
                    raise
                self.here.connection.close()
                time.sleep(random.uniform(0.1, 0.5))  # noqa: S311
                self._end_own_session()
            else:
                return

    def _end_own_session(self) -> None:
        """Fence, then read: a COMMIT that got no answer may still be under way."""
        try:
            self.here.end_work(ledger.work_name(self.attempt))
        except Error as error:
            if not self.here.is_lost(error):
                raise
            self.here.connection.close()

    def _transact(self, work: Callable[[], None], *, may_repeat: bool) -> None:
        """One work transaction, repeated where another one was in its way."""
        for repeats_left in reversed(range(_REPEATS)):
            is_committed: list[bool] = []
            try:
                with self.here.work():
                    # The first hook to run: errors of later ones come after the commit.
                    transaction.on_commit(lambda: is_committed.append(True), using=self.here.using)  # noqa: B023
                    self._lock()
                    work()
            except Exception as error:
                if is_committed:
                    self._afterwards = self._afterwards or error
                    break
                is_conflict = isinstance(error, DatabaseError) and self.here.is_conflict(error)
                if not (is_conflict and may_repeat and repeats_left):
                    raise
                time.sleep(random.uniform(0.01, 0.1))  # noqa: S311
            else:
                break
        self.is_begun = False

    def _lock(self) -> None:
        """Make the transaction in hand the one that may commit for this attempt."""
        with self.guard.yielding(), self.here.answering():
            is_marked = self.here.lock_work(ledger.work_name(self.attempt))
        if not is_marked:
            raise AttemptLost(f"Another session claims to work on {self.attempt}.")
        ledger.lock(self.attempt)

    @property
    def _run(self) -> Run:
        return Run(
            using=self.routine.using,
            attempt=self.attempt.number,
            key=self.attempt.key,
            check=self._check,
        )

    def _check(self) -> None:
        self.guard.check()
        interruption.check()
