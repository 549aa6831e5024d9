"""For the tests of projects that keep seed data in routines."""

from collections.abc import Collection
from typing import ClassVar

from django.db import transaction

from once import body, ledger, registry
from once.base import Run
from once.exceptions import AttemptLost
from once.ledger import Standing
from once.models import Attempt

__all__ = ["CompletedRoutinesMixin", "complete_routines"]


def complete_routines(databases: Collection[str] | None = None) -> None:
    """Run and record what is pending, in the calling thread's transaction where it has one.

    No guard is taken: a test database belongs to one process. What a body raises is raised.

    Args:
        databases: aliases to which to keep; all by default.

    """
    for routine in registry.load().recorded:
        if databases is not None and routine.using not in databases:
            continue
        if ledger.standing([routine])[routine.name] is Standing.OPEN:
            with transaction.atomic(using=routine.using):
                attempt = ledger.begin(routine, ledger.prospect(routine), "test")
                if attempt is None:
                    raise AttemptLost("Another process uses this test database.")
                body.call(routine, _run(attempt))
                ledger.complete(attempt)


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


def _run(attempt: Attempt) -> Run:
    return Run(
        using=str(attempt._state.db),
        attempt=attempt.number,
        key=attempt.key,
        check=lambda: None,  # nobody competes
    )
