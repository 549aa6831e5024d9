"""An attempt under the lock: three ways to commit effects and the record of them."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar

from django.db import DatabaseError, Error

from once.databases import Database
from once.databases.lock import AdvisoryLock
from once.databases.messages import followed
from once.engine import batching, body, shutdown
from once.engine.backoff import Wait
from once.exceptions import AttemptLost, BatchError, BodyError, Paused
from once.models import DECISIONS, Attempt, Trigger
from once.record import anchors, failed_items, recorder, wishes
from once.record.standing import Standing
from once.routines.base import Routine, Run
from once.routines.batches import START
from once.text import one_line

T = TypeVar("T")

#: Repetitions, in one attempt, of a transaction that another transaction was in the way of.
_REPEATS = 10


@dataclass(slots=True, kw_only=True)
class Work:
    """An attempt at a routine, by the holder of the lock."""

    routine: Routine
    attempt: Attempt
    here: Database
    lock: AdvisoryLock
    #: The wait, which gives up if the database cannot be used for too long.
    wait: Wait
    #: True if the body may be called again where another transaction was in its way.
    may_repeat: bool = True
    #: True if earlier attempts at the same completion went through batches.
    was_batched: bool = False
    #: True if a body was called whose effects are not committed, or not recorded.
    is_begun: bool = field(default=False, init=False)
    #: True if the database kept it from its end, and not what the project wrote.
    is_hindered: bool = field(default=False, init=False)
    #: True if ``done_if`` said that the effects exist.
    is_found: bool = field(default=False, init=False)
    #: True if a successor claimed the next attempt.
    has_successor: bool = field(default=False, init=False)
    #: The last error that the project's own code raised, or the COMMIT of what it did.
    of_project: BaseException | None = field(default=None, init=False)
    #: Number of the last wish of a person for the routine, as of the transaction in hand.
    last_wish: int = field(default=0, init=False)
    #: The items that the body was called with, if it raised.
    place: str = field(default="", init=False)
    #: Items that failed, and behind which the routine was completed.
    failed_items: int = field(default=0, init=False)
    #: The driver's connection that the last work transaction began on.
    session: object = field(default=None, init=False)
    #: Key of the mark of its transactions, once it is known.
    _mark: Any = field(default=None, init=False)
    #: The first error of a hook that ran after a commit.
    _afterwards: Exception | None = field(default=None, init=False)

    def carry_out(self, before: Standing) -> None:
        """Do what the attempt is for, at a routine that stood so before it."""
        if self.attempt.trigger == Trigger.RESET:
            self.reset(anew=before is Standing.EARLIER)
        elif self.attempt.trigger == Trigger.FAKE:
            self.fake(is_done=before is Standing.DONE)
        else:
            self.do()

    def do(self) -> None:
        """Call the body and record its effects, in the way of the routine's kind.

        What a body raises is raised, and what its ``on_commit`` hooks raise, at the end. Where
        ``done_if`` says that the effects exist, that is recorded, and the body is not called.
        """
        ways: dict[str, Callable[[], None]] = {
            "atomic": self._atomic,
            "batched": partial(batching.go_through, self),
            "external": self._external,
        }
        if self.attempt.trigger == Trigger.ITEMS:
            ways["batched"] = partial(batching.try_failed_items, self)
        elif self.routine.done_if is not None:
            self._end(lambda: self.transact(self._find, may_repeat=True))
        if not self.is_found:
            self._end(ways[self.routine.kind])

    def fake(self, *, is_done: bool = False) -> None:
        """Record the routine as done, or its failed items where it is, and call no body."""

        def record(attempt: Attempt) -> None:
            failed_items.forget(attempt)  # because a person says that all effects exist
            (recorder.succeed if is_done else recorder.complete)(attempt)

        self._decide(record)

    def reset(self, *, anew: bool = False) -> None:
        """Make the routine pending again; ``anew`` if it begins from the start in any case."""
        start = START if self.routine.kind == "batched" else ""
        self._decide(partial(recorder.undo, start=start, anew=anew))

    def _decide(self, record: Callable[[Attempt], None]) -> None:
        def work() -> None:
            anchors.move(self.attempt)
            record(self.attempt)

        self._end(lambda: self.transact(work, may_repeat=True))

    def _find(self) -> None:
        """Ask ``done_if``, unless an earlier attempt acted, and record the answer yes."""
        self.is_found = False  # of a transaction that is repeated
        if anchors.is_first(self.attempt):
            with self.projects_own():
                self.is_found = body.is_found(self.routine)
        with body.intact(self.here, "done_if="):
            if self.is_found:
                anchors.move(self.attempt)
                recorder.complete(self.attempt, trigger=Trigger.FOUND)

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
            self.lock.confirm()
            if self.last_wish and self.attempt.trigger not in DECISIONS:
                self._refuse_paused()
            self.is_begun = True
            with self.projects_own():
                body.call(self.routine, self.run)
            with body.intact(self.here):
                recorder.complete(self.attempt)

        anchors.move(self.attempt)
        self.transact(work, may_repeat=self.may_repeat)

    def _external(self) -> None:
        self._refuse_batches()
        anchors.move(self.attempt)
        with self.here.statements():
            self._refuse_paused()
        self.lock.ping()
        self.is_begun = True
        with self.projects_own():
            body.call_outside(self.routine, self.run)
        self._record_outside()

    def _refuse_paused(self) -> None:
        """Raise where a person paused the routine between the reading and the claim."""
        wish = wishes.last(self.here.using, [self.routine.name]).get(self.routine.name)
        if wish is not None and wish.is_paused:
            raise Paused(wishes.paused_by(wish))

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
            recorder.complete(self.attempt)

        tries = count()

        def record() -> None:
            if next(tries):
                self._end_own_session()
            self.transact(work, may_repeat=True)

        self.wait.insist(record)

    def _end_own_session(self) -> None:
        """Fence, then read: a COMMIT that got no answer may still be under way."""
        try:
            self.here.terminate_backend(recorder.work_name(self.attempt))
        except Error as error:
            if not self.here.is_lost(error):
                raise
            self.here.connection.close()

    @contextmanager
    def projects_own(self) -> Iterator[None]:
        """A context for what the project wrote: its errors are no trouble of the database."""
        try:
            yield
        except BaseException as error:
            self.of_project = error
            raise

    def transact(self, work: Callable[[], T], *, may_repeat: bool) -> T:
        """Run one work transaction, and repeat it if another transaction was in its way."""
        for repeats_left in reversed(range(_REPEATS)):
            unit = self.here.work()
            is_at_commit = False
            try:
                with unit:
                    self._take_right_to_commit()
                    result = work()
                    # It checks the constraints that were deferred.
                    is_at_commit = self.is_begun and self.routine.kind != "external"
            except Exception as error:
                if is_at_commit:
                    self.of_project = error
                if unit.is_committed:
                    self._afterwards = self._afterwards or error
                    break
                is_conflict = isinstance(error, DatabaseError) and self.here.is_conflict(error)
                if is_conflict and not is_at_commit and error is self.of_project:
                    body.refuse_own_lock(self.here, error)
                if not (is_conflict and may_repeat and repeats_left):
                    raise
                time.sleep(random.uniform(0.01, 0.1))  # noqa: S311
            else:
                break
        if not (unit.is_committed or unit.is_nested):
            raise BodyError("The transaction was to be committed, and was not.")
        self.is_begun = False
        return result

    def _take_right_to_commit(self) -> None:
        """Make the transaction in hand the one that may commit for this attempt."""
        with self.lock.yielding(), self.here.answering():
            self._mark = self.here.mark_backend(recorder.work_name(self.attempt), self._mark)
        if not self._mark:
            raise AttemptLost(f"Another session claims to work on {self.attempt}.")
        with followed(self.here, body.SAVEPOINT):
            self.last_wish = recorder.lock_attempt(self.attempt)
        self.session = self.here.connection.connection

    @property
    def run(self) -> Run:
        """The attempt, for a body that takes ``run``."""
        return Run(
            using=self.routine.using,
            attempt=self.attempt.number,
            key=self.attempt.key,
            check=self._check,
        )

    def _check(self) -> None:
        self.lock.check()
        shutdown.check()
