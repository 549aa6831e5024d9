"""What tests on databases share: routines with effects, a run of them, a thread beside."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import pytest
from django.db import OperationalError, connections
from django.db.migrations.recorder import MigrationRecorder
from django.dispatch import Signal
from django.test import override_settings

from once import Routine, Run
from once.databases import database
from once.databases.lock import AdvisoryLock
from once.engine import executor
from once.engine.options import RunOptions
from once.exceptions import LockLost
from once.models import Attempt, Completion
from once.record import history, recorder
from once.record.standing import Standing
from once.results import Result
from once.routines.registry import Registry
from tests.shop.models import Effect

__all__ = [
    "attempts",
    "begin",
    "beside",
    "completions",
    "conflict",
    "effects",
    "lacking_migrations",
    "last",
    "lose_first_lock",
    "lost_connection",
    "raising",
    "receiving",
    "rows",
    "run",
    "seed",
    "standings",
    "take",
]

T = TypeVar("T")


def seed(using: str, name: str = "shop.seed", **options: Any) -> Routine:
    """A routine whose effect bears its name."""

    def body(run: Run) -> None:
        Effect.objects.using(run.using).create(name=name)

    return Routine(**{"function": body, "name": name, "using": using, **options})


def run(*routines: Routine, patience: float | None = None, **options: Any) -> list[Result]:
    """Run routines, with themselves as the registry."""
    registry = Registry(routines)
    with limited(patience):
        return executor.run(
            registry.routines, registry, RunOptions(**{"trigger": "test", **options})
        )


@contextmanager
def lacking_migrations(using: str, app: str = "auth", count: int = 1) -> Iterator[list[str]]:
    """A context in which a database lacks the last migrations of an app; as ``app.name``."""
    migrations = MigrationRecorder(connections[using])
    names = sorted(name for label, name in migrations.applied_migrations() if label == app)[-count:]
    for name in names:
        migrations.record_unapplied(app, name)
    try:
        yield [f"{app}.{name}" for name in names]
    finally:
        for name in names:
            migrations.record_applied(app, name)


def limited(patience: float | None) -> AbstractContextManager[object]:
    """A context in which a database may be out of reach for so many seconds."""
    return nullcontext() if patience is None else override_settings(ONCE_STARTUP_TIMEOUT=patience)


def begin(routine: Routine) -> Attempt:
    """Claim the next attempt, lock or no lock."""
    attempt = recorder.begin(routine, history.next_attempt(routine), "test")
    assert attempt is not None
    return attempt


def effects(using: str) -> list[str]:
    """Names of the effects that exist."""
    return sorted(Effect.objects.using(using).values_list("name", flat=True))


def attempts(using: str) -> list[tuple[str, int, str]]:
    """Routine, number and state of every attempt."""
    attempts = Attempt.objects.using(using).order_by("routine", "number")
    return list(attempts.values_list("routine", "number", "state"))


def completions(using: str) -> list[tuple[str, int]]:
    """Routine and version of every completion."""
    return list(Completion.objects.using(using).order_by("pk").values_list("routine", "version"))


def raising(error: BaseException, using: str) -> Callable[[], None]:
    """Return a body that has an effect and raises an error."""

    def body() -> None:
        Effect.objects.using(using).create(name="undone")
        raise error

    return body


def standings(*routines: Routine) -> dict[str, Standing]:
    """How routines stand, by name."""
    return {name: found.standing for name, found in history.read(routines).items()}


def last(using: str) -> Attempt:
    """The last attempt that anything made."""
    return Attempt.objects.using(using).latest("number")


def conflict(using: str) -> OperationalError:
    """What a database says where another transaction was in the way."""
    error = OperationalError(1213, "in the way")
    error.sqlstate = "40001"  # type: ignore[attr-defined]
    error.sqlite_errorcode = 5  # type: ignore[attr-defined]
    return error


def lost_connection(using: str) -> OperationalError:
    """What a database says whose connection is gone."""
    error = OperationalError(2006, "the connection is gone")
    error.sqlstate = "08006"  # type: ignore[attr-defined]
    error.sqlite_errorcode = 14  # type: ignore[attr-defined]
    return error


def rows(using: str, sql: str, params: Any = None) -> list[Any]:
    """What a query answers on this thread's connection."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall()) if cursor.description else []


def take(lock: AdvisoryLock) -> None:
    """Hold a lock as another process would: this one does not know that it does."""
    assert lock.acquire()
    lock.unmark()


def lose_first_lock(
    using: str,
    monkeypatch: pytest.MonkeyPatch,
    method: str = "confirm",
    call: int = 1,
    error: type[LockLost] = LockLost,
) -> None:
    """Have the lock be lost where it is first confirmed, or at another method's call."""
    calls: list[int] = []
    here = type(database(using))
    lock = here.lock

    def losing(self: Any, *args: Any) -> AdvisoryLock:
        made = lock(self, *args)
        original = getattr(made, method)

        def lose_first() -> None:
            calls.append(1)
            if len(calls) == call:
                raise error("evicted")
            original()

        monkeypatch.setattr(made, method, lose_first)
        return made

    monkeypatch.setattr(here, "lock", losing)


@contextmanager
def beside(function: Callable[[], T]) -> Iterator[Future[T]]:
    """Call a function in a thread, which has connections of its own; its answer."""

    def call() -> T:
        try:
            return function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


@contextmanager
def receiving(signal: Signal, receive: Callable[..., None]) -> Iterator[None]:
    """Have a signal call a function, in this context only."""
    signal.connect(receive)
    try:
        yield
    finally:
        assert signal.disconnect(receive)
