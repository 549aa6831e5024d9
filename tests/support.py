"""What tests on databases share: routines with effects, a run of them, a thread beside."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from django.db import OperationalError, connections
from django.dispatch import Signal

from once import Routine, Run, ledger, record, runner
from once.databases import database
from once.exceptions import GuardLost
from once.guards import Guard
from once.models import Attempt
from once.record import Standing
from once.registry import Registry
from once.runner import Result
from tests.shop.models import Effect

__all__ = [
    "attempts",
    "begin",
    "beside",
    "conflict",
    "effects",
    "last",
    "lose_first_guard",
    "lost_connection",
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


def run(*routines: Routine, **options: Any) -> list[Result]:
    """Run routines, with themselves as the registry."""
    registry = Registry(routines)
    return runner.run(registry.routines, **{"registry": registry, "trigger": "test", **options})


def begin(routine: Routine) -> Attempt:
    """Claim the next attempt, guard or no guard."""
    attempt = ledger.begin(routine, ledger.prospect(routine), "test")
    assert attempt is not None
    return attempt


def effects(using: str) -> list[str]:
    """Names of the effects that exist."""
    return sorted(Effect.objects.using(using).values_list("name", flat=True))


def attempts(using: str) -> list[tuple[str, int, str]]:
    """Routine, number and state of every attempt."""
    history = Attempt.objects.using(using).order_by("routine", "number")
    return list(history.values_list("routine", "number", "state"))


def standings(*routines: Routine) -> dict[str, Standing]:
    """How routines stand, by name."""
    return {name: found.standing for name, found in record.read(routines).items()}


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


def take(guard: Guard) -> None:
    """Hold a guard as another process would: this one does not know that it does."""
    assert guard.acquire()
    guard.unmark()


def lose_first_guard(
    using: str,
    monkeypatch: pytest.MonkeyPatch,
    method: str = "confirm",
    call: int = 1,
    error: type[GuardLost] = GuardLost,
) -> None:
    """Have the guard be lost where it is first confirmed, or at another method's call."""
    calls: list[int] = []
    here = type(database(using))
    guard = here.guard

    def losing(self: Any, *args: Any) -> Guard:
        made = guard(self, *args)
        original = getattr(made, method)

        def lose_first() -> None:
            calls.append(1)
            if len(calls) == call:
                raise error("evicted")
            original()

        monkeypatch.setattr(made, method, lose_first)
        return made

    monkeypatch.setattr(here, "guard", losing)


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
