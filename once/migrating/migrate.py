"""Django's ``migrate`` under the lock, each migration applied once."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Any

from django.db import DatabaseError, Error
from django.db.migrations.exceptions import MigrationSchemaMissing
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.migration import Migration

from once import conf
from once.databases import Database, database, unapplied
from once.engine.backoff import Retry, Wait
from once.exceptions import AttemptLost, InsideRun, MigrationFailed, OnceError
from once.migrating import gatekeeper
from once.migrating.lock_timeout import SchemaStatements
from once.record import history, migrated
from once.routines.names import RESERVED
from once.text import one_line

NAME = f"{RESERVED}migrate"


def migrate(
    aliases: Sequence[str],
    command: Callable[[str], object],
    *,
    wait: bool = True,
    timeout: float | None = None,
    even_if_current: bool = False,
) -> str | None:
    """Bring databases to the migrations of this code, one process at a time.

    ``command`` runs Django's ``migrate`` on the database of an alias, where that is due, or in any
    case. Where the call does not wait for another process that migrates, it returns a sentence
    that names that process.

    Raises:
        TimedOut: another process still migrates at the deadline.
        DatabaseUnavailable: a database was out of reach for longer than ``ONCE_STARTUP_TIMEOUT``.
        InsideTransaction: the calling thread is inside a transaction.
        MigrationFailed: a migration raised an error that would come again.

    """
    deadline = None if timeout is None else monotonic() + timeout
    for using in aliases:
        with database(using).lock(NAME, conf.liveness_timeout()) as lock:
            patient = Wait(name="migrations", using=using, deadline=deadline, lock=lock, waits=wait)
            answer = patient.until(partial(_look, command, patient, even_if_current))
        if answer is not None:
            return answer
    return None


def _look(
    command: Callable[[str], object], patient: Wait, even_if_current: bool
) -> str | Retry | None:
    """Migrate under the lock, where that is due and free; an error of a migration is its own."""
    here, lock = database(patient.using), patient.lock
    with here.session():
        lock.refuse_own_thread()
        with patient.asking():
            is_locked_elsewhere = patient.has_paused and not lock.is_worth_trying()
            if not (is_locked_elsewhere or even_if_current) and _is_current(here.using):
                if patient.has_paused:
                    patient.end()
                return None
        if is_locked_elsewhere or not lock.acquire(patient.answer_within):
            by = f"migrations are applied by {patient.holder()}"
            return Retry(by) if patient.waits else by
        # Fence, then read: a frozen predecessor may still be inside a migration.
        with lock.yielding():
            is_fenced = not here.terminate_backend(NAME)
        lock.ping()
        while not is_fenced:
            patient.pause("the transaction of a process that migrated before is being ended")
            lock.ping()
            is_fenced = not here.terminate_backend(NAME)
        if even_if_current or not _is_current(here.using):
            with _fenced(here, patient):
                _call(here, command, patient)
            if not unapplied.names(here.using):
                migrated.record_migrated(here.using, NAME, _digest())
    return None


def is_migrating(using: str) -> bool:
    """True if this thread migrates that database under the lock."""
    try:
        database(using).lock(NAME, 0.0).refuse_own_thread()
    except InsideRun:
        return True
    return False


def _call(here: Database, command: Callable[[str], object], patient: Wait) -> None:
    began = monotonic()
    try:
        command(here.using)
    except Error as error:
        patient.worked(monotonic() - began)
        if _may_pass(here, error) or isinstance(error, MigrationSchemaMissing):
            raise
        raise MigrationFailed(
            f"A receiver of pre_migrate or post_migrate failed in database {here.using!r}: "
            f"{one_line(error).rstrip('.')}. Mend it, then run this again."
        ) from error


def _is_current(using: str) -> bool:
    if unapplied.names(using):
        return False
    try:
        # The record says that migrate came to its end, post_migrate handlers and all.
        return migrated.is_migrated(using, NAME, _digest())
    except DatabaseError as error:
        if database(using).is_lost(error) or history.is_installed(using):
            raise
        raise MigrationFailed(f"Database {using!r}: {history.LOST_TABLES}") from error


def _digest() -> str:
    """Return a digest of the migrations of this code, and of its release, if that has a name."""
    names = sorted(map(".".join, unapplied.of_code()))
    # Because a handler of post_migrate may depend on any code.
    names += [conf.release()] if conf.release() else []
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


@contextmanager
def _fenced(here: Database, patient: Wait) -> Iterator[None]:
    """A context in which each migration bears the work lock and is applied once.

    Migration and record share a transaction, which Django's own executor does not see to where
    statements are deferred; there, one with ``atomic = False`` cannot be fenced. Where DDL cannot
    be rolled back, the session bears the lock: what a zombie left half-way stays half-way.
    """

    def apply(executor: MigrationExecutor, migration: Migration, go_on: Callable[[], Any]) -> Any:
        # Some back-ends' editors hold no transaction, whatever the migration says.
        is_atomic = executor.connection.schema_editor(atomic=migration.atomic).atomic_migration
        statements = SchemaStatements(here, patient, migration, is_atomic=is_atomic)
        patient.lock.ping()
        while True:
            try:
                if not (is_atomic or here.has_fenced_ddl):
                    with statements.limited():
                        return go_on()
                with here.migration():
                    refuse_zombie(executor, migration)
                    with statements.limited():
                        return go_on()
            except Exception as error:
                if error is statements.gave_up and not statements.is_begun:
                    statements.pause(error)
                    continue
                may_pass = _may_pass(here, error, is_begun=statements.is_begun)
                if isinstance(error, OnceError) or may_pass:
                    raise
                message = _failure(here.using, migration, error, is_atomic)
                raise MigrationFailed(message) from error

    def refuse_zombie(executor: MigrationExecutor, migration: Migration) -> None:
        if not here.mark_backend(NAME):
            raise AttemptLost("Another process applies migrations now.")
        patient.lock.ping()
        applied = executor.recorder.applied_migrations()
        if (migration.app_label, migration.name) in applied:
            raise AttemptLost(f"Another process applied {migration} meanwhile.")

    with gatekeeper.applying(here.connection, apply, patient):
        yield


def _may_pass(here: Database, error: Exception, *, is_begun: bool = False) -> bool:
    """True if another try may succeed; what cannot be undone has been begun, or not."""
    if not isinstance(error, Error):
        return False
    return here.is_lost(error) or (here.is_in_the_way(error) and not is_begun)


def _failure(using: str, migration: Migration, error: Exception, is_atomic: bool) -> str:
    kept = (
        "Nothing of it was applied. Mend it"
        if is_atomic
        else "It is not atomic, so what it did before that stays, perhaps an invalid index. Undo "
        "that by hand, or complete it and record it by `manage.py migrate --fake`"
    )
    if migration.initial:
        kept += ", or run `manage.py migrate --fake-initial` where its tables exist already"
    return (
        f"Migration {migration} failed in database {using!r}: {one_line(error).rstrip('.')}. "
        f"{kept}, then run this again."
    )
