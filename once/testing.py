"""For the tests of projects: routines completed, run alone, called twice, or out of the way."""

import uuid
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from time import monotonic
from typing import ClassVar
from unittest.mock import patch

from django.apps.registry import Apps
from django.core.management import call_command
from django.db import connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Model
from django.test import TestCase

from once import signals
from once.databases import database
from once.databases.lock import NoLock
from once.engine import body, verdict
from once.engine.attempt import Work
from once.engine.backoff import Wait
from once.exceptions import AttemptLost, RoutineError
from once.models import Completion, State, Trigger
from once.record import gates, history, recorder
from once.results import Outcome, Result, already_done
from once.routines import in_memory, registry
from once.routines.base import Routine, Run
from once.routines.batches import START, batches
from once.routines.names import TOMBSTONE
from once.testing_snapshot import compared, rows
from once.text import one_line, whole

__all__ = [
    "CompletedRoutinesMixin",
    "assert_idempotent",
    "at_gate",
    "complete_routines",
    "isolated_registry",
    "run_routine",
]


def complete_routines(databases: Collection[str] | None = None) -> None:
    """Run and record what is pending, in the calling thread's transaction where it has one.

    No lock is taken: a test database belongs to one process. A body's error is raised. An external
    routine (``atomic=False``) is recorded and not called: tests talk to no other system. Nor is a
    routine that takes ``apps``, because its migration had it done, or no row is that old.

    Args:
        databases: aliases of the databases to complete; all by default.

    """
    for routine in registry.load().recorded:
        if databases is None or routine.using in databases:
            _complete(routine)


def run_routine(routine: Routine, *, predecessors: bool = True) -> Result:
    """Run one routine and record it, in the calling thread's transaction where it has one.

    Unlike :func:`complete_routines` it calls the body of an external routine, too, and sends
    ``attempt_started`` and ``attempt_finished``, as ``once run`` does.

    Args:
        routine: what to run.
        predecessors: True to complete its predecessors first, as `complete_routines` does.

    Returns:
        The result of the run; its outcome is ``already_done`` if there was nothing to do.

    """
    _refuse_other(routine)
    if routine.scope == "process":
        if in_memory.has_run(routine):
            return already_done(routine)
        in_memory.run([routine])
        return Result(routine=routine, outcome=Outcome.RAN)
    if predecessors:
        for other in registry.load().with_predecessors([routine]):
            if other.name != routine.name:
                _complete(other)
    return _complete(routine, is_alone=True)


def _refuse_other(routine: object) -> None:
    if not isinstance(routine, Routine):
        raise TypeError(f"Pass a routine, as in shop.routines.load_currencies, not {routine!r}.")


def assert_idempotent(
    routine: Routine,
    *,
    models: Collection[type[Model]] | None = None,
    ignore: Collection[str] = (),
) -> None:
    """Fail if a second call of the body leaves other rows than the first.

    A batched body is called for all batches, and again for all that ``over`` returns then. An
    external body is called twice with the same ``run.key`` and with ``run.attempt`` 1 and 2: a mock
    of the caller sees its effects. Nothing is recorded. Writes to the routine's database are rolled
    back; those of an external body are left to the test's own transaction.

    Args:
        routine: the routine whose body is called.
        models: the models to compare; by default all managed models of installed apps that the
            routine's database has, except the models of this package.
        ignore: names of fields that may differ, such as ``"seen_at"`` or ``"shop.Price.seen_at"``.
            Fields with ``auto_now=True`` always may, because they tell of the call itself.

    Raises:
        AssertionError: rows differ, and the message says which; or the second call raised.
        RoutineError: a routine of process scope, which has no database.

    """
    _refuse_other(routine)
    if routine.scope == "process":
        raise RoutineError(f"{routine} is in memory only: there are no rows to compare.")
    key = uuid.uuid4().hex
    with nullcontext() if routine.kind == "external" else _rolled_back(routine.using):
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
def at_gate(routine: Routine) -> Iterator[Apps]:
    """Undo migrations until the one that needs a routine is unapplied, inside this context.

    In it :func:`run_routine` has the models of then. At its end all rows are deleted, as after any
    test that commits, and the migrations are applied again. For a ``TransactionTestCase``.

    Returns:
        The models of then, to make rows as they were, and to look at what became of them.

    """
    _refuse_other(routine)
    if connections[routine.using].in_atomic_block:
        raise RuntimeError(
            "at_gate() undoes migrations, which the transaction of a TestCase does not let it. Use "
            "TransactionTestCase, or @pytest.mark.django_db(transaction=True)."
        )
    _bury_old_names(routine.using)
    executor = MigrationExecutor(connections[routine.using])
    executor.migrate([gates.before(routine)])
    try:
        yield gates.behind(routine.using).models
    finally:
        call_command(
            "flush",
            database=routine.using,
            verbosity=0,
            interactive=False,
            inhibit_post_migrate=True,
        )
        executor = MigrationExecutor(connections[routine.using])
        executor.migrate(executor.loader.graph.leaf_nodes())


def _bury_old_names(using: str) -> None:
    """Make tombstones of old names, because a test that commits has emptied the tables at its end.

    Without them no migration that needs a renamed routine is undone.
    """
    routines = [each for each in registry.load().recorded if each.using == using]
    for record in history.read(routines).values():
        for name in record.uncarried:
            Completion.objects.using(using).create(routine=name, version=TOMBSTONE)


@contextmanager
def isolated_registry() -> Iterator[list[Routine]]:
    """Forget every routine inside this context, but those that are declared in it.

    In it no routine of process scope has run, and readiness is not known. A routine that is
    declared in a module of no installed app needs ``name=``.

    Returns:
        The routines, in the order of declaration.

    """
    registry.discover()  # or what is imported later would be declared here
    with patch.object(registry, "site", registry.Site()) as site:
        yield site.declared


class CompletedRoutinesMixin:
    """Mixin for a TestCase or TransactionTestCase: routines are completed in its databases.

    For ``manage.py test``, and wherever a TransactionTestCase may have emptied the tables: its
    flush removes effects and record together, so that they are pending. A
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


def _complete(routine: Routine, *, is_alone: bool = False) -> Result:
    # In a test database nothing waits for a person, so that a held routine is tried again.
    if history.read([routine])[routine.name].is_done:
        return already_done(routine)
    attempt = recorder.begin(routine, history.next_attempt(routine), Trigger.TEST)
    if attempt is None:
        raise AttemptLost("Another process uses this test database.")
    unhurried = replace(routine, rest=0.0, throttle=())
    if is_alone and routine.takes_apps:
        unhurried = gates.behind(routine.using).bound(unhurried)
    work = Work(
        routine=unhurried,
        attempt=attempt,
        here=database(routine.using),
        lock=NoLock(),
        wait=Wait(name=routine.name, using=routine.using, deadline=None, patience=0.0),
    )
    if is_alone:
        signals.attempt_started.send_robust(routine, attempt=attempt)
    began, problem = monotonic(), None
    try:
        if is_alone or not (routine.kind == "external" or routine.takes_apps):
            work.do()
        else:
            work.fake()
        attempt.state = State.SUCCEEDED
    except BaseException as error:
        problem = error
        attempt.state = recorder.close(attempt, State.FAILED, whole(error))
        raise
    finally:
        result = replace(verdict.ended(work, problem, monotonic() - began), routine=routine)
        if is_alone:
            signals.attempt_finished.send_robust(routine, result=result)
    return result


def _call(routine: Routine, key: str, number: int) -> None:
    """Call a body as an attempt does, for every batch where it is called for batches."""
    run = Run(using=routine.using, attempt=number, key=key, check=lambda: None)
    if routine.kind == "external":
        body.call_outside(routine, run)
    elif routine.kind == "atomic":
        with transaction.atomic(using=routine.using):
            body.call(routine, run)
    else:
        with closing(batches(routine)) as made:
            cursor, is_last = START, False
            while not is_last:
                with transaction.atomic(using=routine.using):
                    batch = made.after(cursor, routine.batch_size)
                    if batch.count:
                        body.call(routine, run, batch.items)
                cursor, is_last = batch.cursor, batch.is_last


@contextmanager
def _rolled_back(using: str) -> Iterator[None]:
    with transaction.atomic(using=using):
        yield
        transaction.set_rollback(True, using=using)
