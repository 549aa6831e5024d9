"""For the tests of projects that keep seed data in routines."""

from collections.abc import Collection
from dataclasses import replace
from math import inf
from typing import ClassVar

from once import ledger, record, registry
from once.base import Routine
from once.databases import database
from once.exceptions import AttemptLost
from once.guards import Guard
from once.models import State, Trigger
from once.record import Standing
from once.text import whole
from once.work import Work

__all__ = ["CompletedRoutinesMixin", "complete_routines"]


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


class CompletedRoutinesMixin:
    """For a :class:`django.test.TestCase` in whose databases every routine is completed.

    For ``manage.py test``, and wherever a TransactionTestCase may have emptied the tables: its
    flush removes effects and record together, so what is missing here is what is pending. A
    ``setUpTestData`` of your own must call ``super().setUpTestData()``.
    """

    databases: ClassVar[Collection[str]]

    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()  # type: ignore[misc]
        complete_routines(None if cls.databases == "__all__" else cls.databases)


class _NoGuard(Guard):
    """Nobody competes."""

    def acquire(self, within: float = inf) -> bool:
        return True

    def release(self) -> None:
        pass


def _complete(routine: Routine) -> None:
    if record.read([routine])[routine.name].standing is not Standing.OPEN:
        return
    attempt = ledger.begin(routine, ledger.prospect(routine), Trigger.TEST)
    if attempt is None:
        raise AttemptLost("Another process uses this test database.")
    unhurried = replace(routine, pause=0.0)
    here = database(routine.using)
    work = Work(routine=unhurried, attempt=attempt, here=here, guard=_NoGuard())
    try:
        if routine.kind == "external":
            work.fake()
        else:
            work.do()
    except BaseException as error:
        ledger.close(attempt, State.FAILED, whole(error))
        raise
