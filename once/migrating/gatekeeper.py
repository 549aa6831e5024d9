"""Complete routines before the migrations that need them.

Because any command may migrate, importing this module teaches Django's executor to do so: before
the migration's own transaction begins, by the routine's own lock, claim and batches.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.core.management import CommandError
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.migration import Migration

from once.engine.backoff import Wait
from once.engine.options import RunOptions
from once.exceptions import (
    Held,
    MigrationFailed,
    NotDone,
    OnceError,
    Paused,
    RoutineFailed,
    TimedOut,
)
from once.log import tell
from once.migrating import stragglers
from once.models import Attempt, Completion, State, Trigger
from once.record import anchors, failed_items, history, recorder
from once.record.gates import Gate, elided, gated, inside, leading, passed
from once.results import Outcome, Reason, Result
from once.routines import registry
from once.routines.base import Routine
from once.routines.batches import START

T = TypeVar("T")

_Apply = Callable[[MigrationExecutor, Migration, Callable[[], Any]], Any]

#: Errors for a routine that was left out, by the reason.
_KINDS: dict[Reason | None, type[OnceError]] = {
    Reason.HELD: Held,
    Reason.PAUSED: Paused,
    Reason.TIMED_OUT: TimedOut,
}

_django_apply = MigrationExecutor.apply_migration
_django_migrate = MigrationExecutor.migrate
_django_plan = MigrationExecutor.migration_plan

#: By connection, the way to apply a migration whose gates are passed, and the wait that it is part
#: of. Because a connection belongs to one thread, no thread applies in the way of another.
_ways: WeakKeyDictionary[BaseDatabaseWrapper, tuple[_Apply, Wait]] = WeakKeyDictionary()


@contextmanager
def applying(connection: BaseDatabaseWrapper, apply: _Apply, patient: Wait) -> Iterator[None]:
    """A context in which a function applies the migrations whose gates are passed.

    Args:
        connection: by which they are applied. Migrations of other connections go on as before.
        apply: takes Django's executor, the migration, and what applies it as Django does, which
            may be called again if its transaction was rolled back.
        patient: the wait that this is part of. A gate keeps its deadline, and gets its lock where
            that is the lock of all routines.

    """
    _ways[connection] = apply, patient
    try:
        yield
    finally:
        del _ways[connection]


def _plainly(executor: MigrationExecutor, migration: Migration, go_on: Callable[[], Any]) -> Any:
    return go_on()


def _apply_migration(
    executor: MigrationExecutor,
    state: Any,
    migration: Migration,
    fake: bool = False,
    fake_initial: bool = False,
) -> Any:
    """Apply a migration as Django does, behind its gates; a fake one completes nothing."""
    # By default in Django's way, with a wait that has no limit.
    plain = Wait(name="migrations", using=executor.connection.alias, deadline=None)
    apply, patient = _ways.get(executor.connection, (_plainly, plain))
    gates = leading(migration)
    if gates and fake_initial:
        fake = executor.detect_soft_applied(state, migration)[0]
    if fake:
        for gate in gates:
            _warn(
                gate.name,
                f"Migration {migration} is faked, which completes nothing. If the effects exist, "
                f"record them: `manage.py once run --fake {gate.name}`.",
            )
    else:
        for gate, routine in _gated(gates, executor, migration):
            # Because Django leaves relations between models as they were, until code needs them.
            state.clear_delayed_apps_cache()
            _complete(routine, migration, state.apps, patient)
            _refuse_failed_items(gate, routine)
            stragglers.catch_up(
                routine.with_models(state.apps), partial(apply, executor, migration)
            )
        for _, routine in _gated(elided(executor.loader, migration), executor, migration):
            _record(routine, migration, patient)

    def go_on() -> Any:
        # On a copy, because a try that is undone has changed it.
        own = state if apply is _plainly else state.clone()
        return _django_apply(executor, own, migration, fake, fake_initial)

    return apply(executor, migration, go_on)


def _gated(
    gates: Iterable[Gate], executor: MigrationExecutor, migration: Migration
) -> Iterator[tuple[Gate, Routine]]:
    """Yield gates, each with its routine, that are to be done in the database of an executor."""
    for gate in gates:
        routine = gated(gate, executor.connection.alias, migration.app_label)
        if routine is not None:
            yield gate, routine


def _migration_plan(
    executor: MigrationExecutor, targets: Any, clean_start: bool = False
) -> list[tuple[Migration, bool]]:
    """Return Django's plan, in which the record's own tables come before the first gate."""
    plan: list[tuple[Migration, bool]] = _django_plan(executor, targets, clean_start)
    forwards = [migration for migration, is_backwards in plan if not is_backwards]
    for migration in forwards:
        _refuse_misplaced(migration)
    loader = executor.loader
    if not any(leading(each) or elided(loader, each) for each in forwards):
        return plan
    own = loader.graph.leaf_nodes(Completion._meta.app_label)
    first = _django_plan(executor, own, clean_start)
    return first + [step for step in plan if step not in first]


def _ending_command(method: Callable[..., T]) -> Callable[..., T]:
    """Have a method raise errors of this package such that Django's command prints the message.

    They stay what they are, and ``--traceback`` shows the rest. Under the lock nothing changes,
    because the command that took it ends with exit codes of its own.
    """

    @wraps(method)
    def call(executor: MigrationExecutor, *args: Any, **options: Any) -> T:
        try:
            return method(executor, *args, **options)
        except OnceError as error:
            kind = type(error)
            if issubclass(kind, CommandError) or executor.connection in _ways:
                raise
            both = type(kind.__name__, (kind, CommandError), {"__module__": kind.__module__})
            raise both(str(error)).with_traceback(error.__traceback__) from error.__cause__

    return call


MigrationExecutor.apply_migration = _apply_migration  # type: ignore[method-assign, assignment]
MigrationExecutor.migrate = _ending_command(_django_migrate)  # type: ignore[method-assign]
MigrationExecutor.migration_plan = _ending_command(_migration_plan)  # type: ignore[method-assign]


def _complete(routine: Routine, migration: Migration, models: Any, patient: Wait) -> None:
    """Complete a routine and all that it comes after, on the models that a migration finds."""
    routines = [
        each.with_models(models) if each.using == routine.using else each
        for each in registry.load().with_predecessors([routine])
    ]
    results = _run(routines, routine, patient, trigger=Trigger.MIGRATE)
    if not routine.takes_apps and results[-1].outcome is not Outcome.ALREADY_DONE:
        _warn(
            routine.name,
            f"It takes no `apps`, so that it has the models of the newest code, and not those that "
            f"migration {migration} finds. Give the body, or over=, that parameter.",
        )
    _refuse_undone(routine, migration, results)


def _record(routine: Routine, migration: Migration, patient: Wait) -> None:
    """Record a routine as done, because tables that a squashed migration makes have no old rows."""
    reason = f"left out of {migration}"
    results = _run([routine], routine, patient, trigger=Trigger.FAKE, reason=reason)
    _refuse_undone(routine, migration, results)


def _run(
    routines: list[Routine], needed: Routine, patient: Wait, **options: Any
) -> Sequence[Result]:
    from once.engine import executor

    run_options = RunOptions(needed=needed, wait=patient.waits, timeout=patient.timeout, **options)
    with patient.lock.lent():
        return executor.run(routines, registry.load(), run_options)


def _refuse_undone(routine: Routine, migration: Migration, results: Sequence[Result]) -> None:
    """Raise, by the first reason, where a routine or what it comes after is not done."""
    undone = [result for result in results if not result.is_done]
    if not undone:
        return
    reasons = "; ".join(f"{each.routine.name}: {each.message}" for each in undone)
    kind = _KINDS.get(undone[0].reason, NotDone)
    if undone[0].outcome is Outcome.FAILED:
        kind = RoutineFailed
    raise kind(
        f"Migration {migration} needs the routine {routine.name}, which is not done. {reasons}"
    ) from undone[0].error


def _refuse_failed_items(gate: Gate, routine: Routine) -> None:
    number = failed_items.counts([routine]).get(routine.name)
    if number and not gate.allow_failed_items:
        raise NotDone(
            f"A migration needs the routine {routine.name}, of which items failed. "
            f"{failed_items.explain(routine.name, number)} If the migration can do without these "
            "items, pass allow_failed_items=True to its RunRoutine."
        )


def _warn(name: str, message: str) -> None:
    tell(logging.WARNING, "gate", routine=name, message=message)


def confirm(gate: Gate, routine: Routine, models: Any) -> None:
    """See that the routine of a gate is done, in the transaction of the migration that needs it.

    Raises:
        MigrationFailed: it is not done, or rows of old code come faster than it does them.
        NotDone: items of it failed.

    """
    record = history.read([routine])[routine.name]
    if not record.is_done or record.is_overtaken:
        raise MigrationFailed(
            f"The routine {routine.name} is not done, and a migration needs it. Apply that by "
            f"`manage.py migrate`, or call `manage.py once run {routine.name}` first."
        )
    _refuse_failed_items(gate, routine)
    stragglers.finish(routine.with_models(models))


def reverse(routine: Routine) -> None:
    """Make a routine pending again, in the transaction that undoes its first migration.

    Effects outside of the database are not undone, so that a person decides before it runs again.

    Raises:
        MigrationFailed: the routine runs.

    """
    if passed(routine.using)[routine.name] > 1:
        return
    upcoming = history.next_attempt(routine)
    if upcoming.record.uncarried:
        raise MigrationFailed(
            f"The migration that needs {routine.name} is to be undone, and its record stands under "
            f"its old name {upcoming.record.uncarried[0]}. First have that carried over, by "
            f"`manage.py once run {routine.name}`."
        )
    attempt = None if upcoming.predecessors else recorder.begin(routine, upcoming, Trigger.REVERSE)
    if attempt is None:
        raise MigrationFailed(
            f"The routine {routine.name} runs, and the migration that needs it is to be undone. "
            "Wait for it: `manage.py once status` shows where it runs. If that process is dead, "
            f"`manage.py once run {routine.name}` takes over; then undo the migration."
        )
    with transaction.atomic(using=routine.using):
        anchors.move(attempt)
        recorder.undo(attempt, start=START if routine.kind == "batched" else "")
        if routine.kind == "external" or not routine.retry:
            own = Attempt.objects.using(routine.using).filter(pk=attempt.pk)
            own.update(state=State.INTERRUPTED, retry=False)


def _refuse_misplaced(migration: Migration) -> None:
    """Raise where a gate stands behind another operation, which would be applied before."""
    if len(leading(migration)) < sum(map(inside, migration.operations)):
        raise MigrationFailed(
            f"A RunRoutine of {migration} stands behind another operation, or in one. Because a "
            "routine is completed before its migration begins, move that operation into an earlier "
            "migration. "
            "A squashed migration that begins on empty tables needs none: pass elidable=True."
        )
