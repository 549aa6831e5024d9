"""For the tests of projects: routines completed, run alone, called twice, or out of the way."""

import uuid
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from math import inf
from time import monotonic
from typing import ClassVar
from unittest.mock import patch

from django.db import connections, transaction
from django.db.models import Model
from django.test import TestCase

from once import body, declare, ledger, process, readiness, record, registry, signals
from once.base import Routine
from once.batches import START, batches
from once.databases import database
from once.exceptions import AttemptLost, RoutineError
from once.guards import Guard
from once.models import State, Trigger
from once.record import Standing
from once.results import Outcome, Result, already_done
from once.rows import compared, rows
from once.run import Run
from once.text import one_line, whole
from once.work import Work

__all__ = [
    "CompletedRoutinesMixin",
    "assert_idempotent",
    "complete_routines",
    "isolated_registry",
    "run_routine",
]


def complete_routines(databases: Collection[str] | None = None) -> None:
    """Run and record what is pending, in the calling thread's transaction where it has one.

    No guard is taken: a test database belongs to one process. What a body raises is raised. An
    external routine (``atomic=False``) is recorded and not called: tests do not talk to others.

    Args:
        databases: aliases to which to keep; all by default.

    """
    for routine in registry.load().recorded:
        if databases is None or routine.using in databases:
            _complete(routine)


def run_routine(routine: Routine, *, predecessors: bool = True) -> Result:
    """Run one routine and record it, in the calling thread's transaction where it has one.

    Unlike :func:`complete_routines` it calls the body of an external routine, too, and sends
    ``attempt_started`` and ``attempt_finished``, as the runner does.

    Args:
        routine: what to run.
        predecessors: whether to complete what it comes after first, as `complete_routines` does.

    Returns:
        What was done: nothing, where it is done already.

    """
    found = registry.load()
    if routine.scope == "process":
        if process.has_run(routine):
            return already_done(routine)
        process.run([routine])
        return Result(routine=routine, outcome=Outcome.RAN)
    if predecessors:
        for other in found.with_predecessors([routine]):
            if other.name != routine.name:
                _complete(other)
    return _complete(routine, is_alone=True)


def assert_idempotent(
    routine: Routine,
    *,
    models: Collection[type[Model]] | None = None,
    ignore: Collection[str] = (),
) -> None:
    """Fail where a second call of the body leaves other rows than the first.

    A batched body is called for all batches, and then for all that ``over`` returns then. An
    external one is called twice with the same ``run.key`` and with ``run.attempt`` 1 and 2: what it
    did outside is for the caller's mock to say. Nothing is recorded, and what was written to the
    routine's database is rolled back; what an external body wrote is left to the test's own
    transaction.

    Args:
        routine: whose body is called.
        models: whose rows to compare: by default all of installed apps that the routine's database
            has, but those of this package and unmanaged ones.
        ignore: names of fields that may differ, such as ``"seen_at"`` or ``"shop.Price.seen_at"``.
            Fields with ``auto_now=True`` always may: they tell of the call itself.

    Raises:
        AssertionError: rows differ, and the message says which; or the second call raised.
        RoutineError: a routine of process scope, which has no database.

    """
    if routine.scope == "process":
        raise RoutineError(f"{routine} is in memory only: there are no rows to compare.")
    key = uuid.uuid4().hex
    with ExitStack() as ends:
        if routine.kind != "external":
            ends.enter_context(_rolled_back(routine.using))
        _call(routine, key, 1)
        first = rows(routine.using, models, ignore)
        try:
            _call(routine, key, 2)
        except Exception as error:
            raise AssertionError(
                f"{routine.name} is not idempotent: its second call raised {one_line(error)}"
            ) from error
        second = rows(routine.using, models, ignore)
    if differences := compared(first, second):
        raise AssertionError(
            "\n  ".join([f"{routine.name} is not idempotent. Its second call left:", *differences])
        )


@contextmanager
def isolated_registry() -> Iterator[list[Routine]]:
    """A context in which no routines are declared but those that are declared in it.

    In it no routine of process scope has run, and readiness is not known. A routine that is
    declared in a module of no installed app needs ``name=``.

    Returns:
        The routines, in the order of their declaration.

    """
    registry.discover()  # or what is imported later would be declared here
    declared: list[Routine] = []
    with (
        patch.object(declare, "declared", declared),
        patch.object(registry, "_loaded", None),
        patch.object(process, "_run", set()),
        patch.object(readiness, "_is_ready", False),
    ):
        yield declared


class CompletedRoutinesMixin:
    """For a TestCase or a TransactionTestCase of Django, in whose databases routines are completed.

    For ``manage.py test``, and wherever a TransactionTestCase may have emptied the tables: its
    flush removes effects and record together, so what is missing here is what is pending. A
    ``setUpTestData`` of your own must call ``super().setUpTestData()``, and a ``setUp`` in a
    TransactionTestCase ``super().setUp()``.
    """

    databases: ClassVar[Collection[str]]

    @classmethod
    def setUpTestData(cls) -> None:
        """Complete what is pending for all tests of a TestCase."""
        super().setUpTestData()  # type: ignore[misc]
        cls._complete_routines()

    def setUp(self) -> None:
        """Complete what is pending before each test of a TransactionTestCase, which has no data."""
        if not isinstance(self, TestCase):
            self._complete_routines()
        super().setUp()  # type: ignore[misc]

    @classmethod
    def _complete_routines(cls) -> None:
        complete_routines(None if cls.databases == "__all__" else cls.databases)


class _NoGuard(Guard):
    """Nobody competes."""

    def acquire(self, within: float = inf) -> bool:
        return True

    def release(self) -> None:
        pass


def _complete(routine: Routine, *, is_alone: bool = False) -> Result:
    if record.read([routine])[routine.name].standing is not Standing.OPEN:
        return already_done(routine)
    attempt = ledger.begin(routine, ledger.prospect(routine), Trigger.TEST)
    if attempt is None:
        raise AttemptLost("Another process uses this test database.")
    unhurried = replace(routine, pause=0.0)
    here = database(routine.using)
    work = Work(routine=unhurried, attempt=attempt, here=here, guard=_NoGuard())
    if is_alone:
        signals.attempt_started.send_robust(routine, attempt=attempt)
    began = monotonic()
    outcome, problem = Outcome.FAILED, None
    try:
        if routine.kind == "external":
            if is_alone:  # not by the work itself, which closes the connection: it may be a test's
                with _savepoint(routine.using):
                    routine.call(_run(routine, attempt.key, attempt.number))
            work.fake()
        else:
            work.do()
        outcome, attempt.state = Outcome.RAN, State.SUCCEEDED
    except BaseException as error:
        problem = error
        attempt.state = ledger.close(attempt, State.FAILED, whole(error))
        raise
    finally:
        result = Result(
            routine=routine,
            outcome=outcome,
            attempt=attempt,
            seconds=monotonic() - began,
            message=one_line(problem) if problem else "",
            has_failed=problem is not None,
            error=problem,
        )
        if is_alone:
            signals.attempt_finished.send_robust(routine, result=result)
    return result


def _call(routine: Routine, key: str, number: int) -> None:
    """Call a body as an attempt does, for every batch where it is called for batches."""
    run = _run(routine, key, number)
    if routine.kind == "external":
        routine.call(run)
    elif routine.kind == "atomic":
        with transaction.atomic(using=routine.using):
            body.call(routine, run)
    else:
        with closing(batches(routine)) as found:
            cursor, is_last = START, False
            while not is_last:
                with transaction.atomic(using=routine.using):
                    batch = found.after(cursor)
                    if batch.items:
                        body.call(routine, run, list(batch.items))
                cursor, is_last = batch.cursor, batch.is_last


def _run(routine: Routine, key: str, number: int) -> Run:
    return Run(using=routine.using, attempt=number, key=key, check=lambda: None)


def _savepoint(using: str) -> AbstractContextManager[object]:
    """Where a test has a transaction, what keeps it usable when a body fails in it."""
    if connections[using].in_atomic_block:
        return transaction.atomic(using=using)
    return nullcontext()


@contextmanager
def _rolled_back(using: str) -> Iterator[None]:
    with transaction.atomic(using=using):
        yield
        transaction.set_rollback(True, using=using)
