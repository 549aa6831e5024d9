"""Try a routine under its lock, in a transaction that is rolled back: recorded as nothing."""

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

from django.db import DatabaseError, transaction

from once import conf
from once.databases import Database, database, discard
from once.databases.base import Context, Execute
from once.databases.lock import AdvisoryLock
from once.databases.rehearsal import changes, limit_locks
from once.engine import body, shutdown
from once.engine.backoff import Retry, Wait
from once.exceptions import NotDone
from once.models import Attempt
from once.record import anchors, failed_items, gates, history, wishes
from once.record.history import NextAttempt
from once.record.standing import Standing
from once.routines.base import Routine, Run
from once.routines.batches import START, Batches, Progress, batches
from once.routines.registry import Registry

#: Seconds that a statement waits for a lock, so that no transaction waits behind it for long.
LOCKS = 2

_CHANGING = ("INSERT", "UPDATE", "DELETE", "REPLACE")


def rehearse(
    routine: Routine,
    registry: Registry,
    *,
    limit: int | None = None,
    wait: bool = True,
    timeout: float | None = None,
) -> "Rehearsal":
    """Call a body as the next attempt would, measure it, and undo what it did.

    Args:
        routine: atomic or batched.
        registry: all routines of this code.
        limit: items that the body gets; a batch by default.
        wait: True if the call waits for a process that runs the routine.
        timeout: seconds after which it stops waiting; none by default.

    Raises:
        NotDone: the routine is done, blocked, or run by another process, and that is not waited
            for; or a routine must be done before.
        TimedOut: the deadline passed.
        DatabaseUnavailable: a database was out of reach for longer than ``ONCE_STARTUP_TIMEOUT``.
        ImproperlyConfigured: the routine's scope lacks ``ONCE_RELEASE``, or a file.

    """
    routine.check_scope()
    here = database(routine.using)
    with here.session(), here.lock(routine.name, conf.liveness_timeout()) as lock:
        waiting = Wait(
            name=routine.name,
            using=routine.using,
            deadline=None if timeout is None else monotonic() + timeout,
            waits=wait,
            lock=lock,
        )
        _refuse_undue(routine, registry, waiting)
        waiting.until(partial(_take, here, waiting))
        routine = _refuse_undue(routine, registry, waiting)  # what was waited for may be done
        upcoming = lock.read(lambda: history.next_attempt(routine))
        rehearsal = Rehearsal(routine=routine, here=here, lock=lock, upcoming=upcoming, limit=limit)
        rehearsal.go()
    if rehearsal.is_found:
        raise NotDone(
            f"Not tried, since done_if= of {routine.name} says that its effects exist. A run would "
            "record that."
        )
    return rehearsal


def _take(here: Database, waiting: Wait) -> bool | Retry:
    """Take the lock, or return what keeps this process from it."""
    with waiting.asking():
        here.connection.ensure_connection()
        if waiting.lock.acquire(waiting.answer_within):
            return True
        waiting.lock.refuse_own_thread()
    if not waiting.waits:
        raise NotDone(f"Not tried, since {waiting.name} is run by {waiting.holder()}.")
    return Retry(lambda: f"{waiting.name} is run by {waiting.holder()}")


def _refuse_undue(routine: Routine, registry: Registry, waiting: Wait) -> Routine:
    """Return the routine with the models that it is to have, or raise where it is not due."""
    using, name = routine.using, routine.name
    known = waiting.ask(partial(history.read_if_installed, [routine])).get(name)
    behind = waiting.ask(partial(gates.behind, using, is_readable=known is not None))
    if blocker := behind.blocker(routine):
        raise NotDone(f"{name}: {blocker}")
    if known is not None and known.standing in (Standing.SUPERSEDED, Standing.EARLIER):
        raise NotDone(
            f"Not tried, since {name} is superseded: a newer version or value of it was begun."
        )
    if known is not None and known.is_done:
        raise NotDone(
            f"Not tried, since {name} is done. To try a changed body, raise its version= first."
        )
    if known is not None and known.uncarried:
        raise NotDone(
            f"Not tried, since its record stands under its old name {known.uncarried[0]}. First "
            f"have that carried over, by `manage.py once run {name}`."
        )
    for other in registry.predecessors(routine):
        there = Wait(name=other.name, using=other.using, deadline=waiting.deadline)
        if undone := there.ask(partial(history.undone, [other])):
            raise NotDone(
                f"Not tried, since {undone[0]} must be done before. First run that, by `manage.py "
                f"once run {undone[0]}`."
            )
    return behind.bound(routine)


class _Undone(Exception):
    """Ends a transaction without its COMMIT."""


@dataclass(slots=True, kw_only=True)
class Rehearsal:
    """A call of a body whose effects are undone, and what it measured."""

    routine: Routine
    here: Database
    lock: AdvisoryLock
    upcoming: NextAttempt
    limit: int | None
    #: Items that the body was called with, and items that all of it has left, these included.
    items: int | None = None
    left: int | None = None
    seconds: float = 0.0
    #: Seconds that all of it would take at this pace, if that is known.
    seconds_left: float | None = None
    statements: int = 0
    #: Rows that were inserted, updated and deleted, and the same by table where that is told.
    rows: int = 0
    tables: Mapping[str, int] | None = None
    #: True if ``done_if`` said that the effects exist, so that the body was not called.
    is_found: bool = False
    #: The error of the project's code, and the items that it was called with.
    error: Exception | None = None
    place: str = field(default="", init=False)

    def go(self) -> None:
        """Call the body once, or for one batch, or for as many items as were asked for."""
        try:
            with self.here.work():
                self.here.mark_backend(f"dry run of {self.routine}")  # with no limit while idle
                limit_locks(self.here, LOCKS)
                self.lock.confirm()
                before = changes(self.here) or {}
                self._measure()
                after = changes(self.here)
                if after is not None:
                    grown = {name: rows - before.get(name, 0) for name, rows in after.items()}
                    self.rows = sum(grown.values())
                    if "" not in grown:
                        self.tables = {name: rows for name, rows in grown.items() if rows}
                raise _Undone  # noqa: TRY301
        except Exception as error:
            if error is not self.error and not isinstance(error, _Undone):
                raise
        finally:
            discard(self.here)  # with the limit, which may be the session's

    def _measure(self) -> None:
        # Read before the first call of the project's code, whose error is told apart by its place.
        attempt = Attempt(
            routine=self.routine.name,
            number=self.upcoming.number,
            version=self.routine.version,
            scope_key=self.routine.scope_key,
        )
        attempt._state.db = self.here.using
        done = history.progress(attempt)
        wish = wishes.last(self.here.using, [self.routine.name]).get(self.routine.name)
        pace = wishes.pace(self.routine, wish)
        try:
            if self.routine.done_if and anchors.is_first(attempt):
                self.is_found = body.is_found(self.routine)
            if self.is_found:
                return
            if self.routine.kind != "batched":
                self._call()
                self.seconds_left = self.seconds
                return
            if self.routine.statement_timeout is not None:
                self.here.limit_statements(self.routine.statement_timeout)
            with closing(batches(self.routine)) as items:
                if self.routine.last_pass:
                    items.left_out = {*failed_items.names(attempt)}
                self.left = self._left(items, done)
                self._go_through(items, done.cursor or START, pace.batch_size)
        except Exception as error:
            self.error = error
            raise
        if self.left is not None and self.items:
            rests = math.ceil(self.left / pace.batch_size) - 1
            self.seconds_left = self.seconds / self.items * self.left + rests * pace.rest

    def _left(self, items: Batches, done: Progress) -> int | None:
        """Return how many items are left, or ``None`` if that is not to be had."""
        try:
            with transaction.atomic(using=self.here.using):
                total = items.total(done)
        except DatabaseError as error:
            if self.here.is_lost(error):
                raise
            return None
        return None if total is None else total - done.processed

    def _go_through(self, items: Batches, cursor: str, size: int) -> None:
        wanted, self.items = self.limit or size, 0
        while self.items < wanted:
            began = monotonic()
            batch = items.after(cursor, min(size, wanted - self.items))
            self.seconds += monotonic() - began
            if batch.count:
                self.place = batch.place
                self._call(batch.items)
            self.items += batch.count
            cursor = batch.cursor
            if batch.is_last:
                break

    def _call(self, *batch: Any) -> None:
        run = Run(
            using=self.here.using,
            attempt=self.upcoming.number,
            key=self.upcoming.key,
            check=self._check,
        )
        began = monotonic()
        with self.here.connection.execute_wrapper(self._count):
            body.call_alone(self.routine, run, *batch)
        self.seconds += monotonic() - began

    def _count(self, execute: Execute, sql: str, params: Any, many: bool, context: Context) -> Any:
        answer = execute(sql, params, many, context)
        statement = str(sql).strip()
        if not statement.endswith("once_body"):  # by which the body's transaction is watched
            self.statements += 1
            if statement[:7].upper().startswith(_CHANGING):
                self.rows += max(0, context["cursor"].rowcount)
        return answer

    def _check(self) -> None:
        self.lock.check()
        shutdown.check()
