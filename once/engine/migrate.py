"""Django's ``migrate`` under the guard, each migration applied once."""

import hashlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from django.apps import AppConfig, apps
from django.db import DatabaseError, Error, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import Migration

from once import conf, ledger, record
from once.base import RESERVED
from once.databases import Database, database
from once.exceptions import (
    AttemptLost,
    CannotFence,
    GuardLost,
    MigrationFailed,
    NoConnection,
    OnceError,
)
from once.guards import Guard
from once.text import one_line
from once.waiting import Wait

__all__ = ["migrate", "unapplied"]

NAME = f"{RESERVED}migrate"


def unapplied(using: str) -> list[str]:
    """Migrations of this code, as ``app.name``, that a database lacks."""
    if _are_recorded(using):
        return []
    executor = MigrationExecutor(connections[using])
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def _are_recorded(using: str) -> bool:
    """Whether a database has a record of every migration, by the names of their files.

    Then it lacks none. To load them all takes a hundred times as long, and each process of a herd
    would, on connections that the others wait for.
    """
    try:
        with database(using).statements(), connections[using].cursor() as cursor:
            cursor.execute("SELECT app, name FROM django_migrations")
            recorded = set(cursor.fetchall())
    except DatabaseError as error:
        if database(using).is_lost(error):
            raise
        return False  # there is no such table yet, or what follows says why
    return all(
        (app.label, name) in recorded for app in apps.get_app_configs() for name in _names(app)
    )


def _names(app: AppConfig) -> Iterator[str]:
    """The names that Django finds migrations of an app by, as its ``MigrationLoader`` does."""
    package, _ = MigrationLoader.migrations_module(app.label)
    found = importlib.util.find_spec(package) if package else None
    if found and found.origin:
        for _, name, is_package in pkgutil.iter_modules(found.submodule_search_locations):
            if not is_package and name[0] not in "_~":
                yield name


def migrate(
    aliases: Sequence[str],
    command: Callable[[str], object],
    *,
    wait: bool = True,
    timeout: float | None = None,
    patience: float | None = None,
) -> str | None:
    """Bring databases to the migrations of this code, one process at a time.

    Args:
        aliases: of the databases.
        command: runs Django's ``migrate`` on the database of an alias.
        wait: whether to wait for another process that migrates.
        timeout: seconds after which to stop waiting for another process; none by default.
        patience: seconds for which a database may be out of reach, ``ONCE_STARTUP_TIMEOUT`` by
            default.

    Returns:
        Who is in the way, where that is not to be waited for.

    Raises:
        TimedOut: another process still migrates at the deadline.
        DatabaseUnavailable: a database was out of reach for longer than ``patience``.
        InsideTransaction: the calling thread is inside a transaction.
        MigrationFailed: a migration raised an error that would come again.

    """
    deadline = None if timeout is None else monotonic() + timeout
    for using in aliases:
        here = database(using)
        with here.guard(NAME, conf.liveness_timeout()) as guard:
            waiting = Wait(
                name="migrations",
                using=using,
                deadline=deadline,
                limit=patience,
                guard=guard,
            )
            in_the_way = _migrate(here, guard, command, waiting, wait=wait)
        if in_the_way is not None:
            return in_the_way
    return None


def _migrate(
    here: Database, guard: Guard, command: Callable[[str], object], waiting: Wait, *, wait: bool
) -> str | None:
    """Poll until one database is migrated; or who is in the way."""
    while True:
        try:
            with here.session():
                in_the_way = _try(here, guard, command, waiting)
        except Error as error:
            if not _may_pass(here, error):
                raise
            guard.release()
            waiting.survive(error)
        except NoConnection as error:
            guard.release()
            waiting.survive(error)
        except (AttemptLost, CannotFence, GuardLost) as error:
            guard.release()
            waiting.pause(str(error))
        else:
            if in_the_way is None or not wait:
                return in_the_way
            waiting.pause(in_the_way)


def _try(here: Database, guard: Guard, command: Callable[[str], object], wait: Wait) -> str | None:
    """Migrate under the guard; or who is in the way."""
    guard.refuse_own_thread()
    with wait.asking():
        is_held = wait.has_paused and not guard.is_worth_trying()
        if not is_held and _is_current(here.using):
            if wait.has_paused:
                wait.end()
            return None
    if is_held or not guard.acquire(wait.patience_left):
        with suppress(Error), wait.asking():
            guard.find_holder()
        wait.expect(guard.freed_in)
        return f"migrations are applied by {guard.holder}"
    # Fence, then read: a frozen predecessor may still be inside a migration.
    with guard.yielding():
        is_fenced = not here.end_work(NAME)
    guard.ping()
    wait.answered()
    while not is_fenced:
        wait.pause("the transaction of a process that migrated before is being ended")
        guard.ping()
        is_fenced = not here.end_work(NAME)
    if not _is_current(here.using):
        with _fenced(here, guard):
            command(here.using)
        ledger.record_migrated(here.using, NAME, _digest())
    return None


def _is_current(using: str) -> bool:
    # The record says that migrate came to its end, post_migrate handlers and all.
    return not unapplied(using) and record.is_migrated(using, NAME, _digest())


def _digest() -> str:
    """Of the migrations of this code, which is what a database is brought to."""
    names = sorted(map(".".join, MigrationLoader(None).graph.nodes))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


@contextmanager
def _fenced(here: Database, guard: Guard) -> Iterator[None]:
    """A context in which each migration bears the work lock and is applied once.

    Migration and record share a transaction, which Django's own executor does not see to where
    statements are deferred; there, one with ``atomic = False`` cannot be fenced. Where DDL cannot
    be rolled back, the session bears the lock: what a zombie left half-way stays half-way.
    """
    original = MigrationExecutor.apply_migration

    def apply(
        executor: MigrationExecutor, state: Any, migration: Migration, *args: Any, **kwargs: Any
    ) -> Any:
        connection = executor.connection
        if connection.alias != here.using:
            return original(executor, state, migration, *args, **kwargs)
        guard.ping()
        is_atomic = migration.atomic and connection.features.can_rollback_ddl
        try:
            if not (is_atomic or here.has_fenced_ddl):
                return original(executor, state, migration, *args, **kwargs)
            return apply_once(executor, state, migration, *args, **kwargs)
        except Exception as error:
            if isinstance(error, OnceError) or _may_pass(here, error):
                raise
            raise MigrationFailed(_failure(here.using, migration, error, is_atomic)) from error

    def apply_once(
        executor: MigrationExecutor, state: Any, migration: Migration, *args: Any, **kwargs: Any
    ) -> Any:
        with here.migration():
            if not here.lock_work(NAME):
                raise AttemptLost("Another process applies migrations now.")
            guard.ping()
            applied = executor.recorder.applied_migrations()
            if (migration.app_label, migration.name) in applied:
                raise AttemptLost(f"Another process applied {migration} meanwhile.")
            return original(executor, state, migration, *args, **kwargs)

    MigrationExecutor.apply_migration = apply  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        MigrationExecutor.apply_migration = original  # type: ignore[method-assign]


def _may_pass(here: Database, error: Exception) -> bool:
    """Whether another try may get through."""
    return isinstance(error, Error) and (
        here.is_lost(error) or here.is_conflict(error) or here.is_locked(error)
    )


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
