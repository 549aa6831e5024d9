"""For the tests of projects that keep seed data in routines."""

from django.db import transaction
from django.test import TestCase

from once import body, ledger, registry
from once.base import Run
from once.exceptions import AttemptLost
from once.ledger import Standing
from once.models import Attempt

__all__ = ["CompletedRoutines", "complete_routines"]


def complete_routines() -> None:
    """Run and record what is pending, in the calling thread's transaction where it has one.

    No guard is taken: a test database belongs to one process. What a body raises is raised.
    """
    found = registry.load()
    for routine in found.recorded:
        if ledger.standing([routine])[routine.name] is Standing.OPEN:
            with transaction.atomic(using=routine.using):
                attempt = ledger.begin(routine, ledger.prospect(routine), "test")
                if attempt is None:
                    raise AttemptLost("Another process uses this test database.")
                body.call(routine, _run(attempt))
                ledger.complete(attempt)


class CompletedRoutines(TestCase):
    """A :class:`django.test.TestCase` in whose database every routine is completed.

    For ``manage.py test``, and wherever a TransactionTestCase may have emptied the tables: its
    flush removes effects and record together, so what is missing here is what is pending.
    """

    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        complete_routines()


def _run(attempt: Attempt) -> Run:
    return Run(
        using=str(attempt._state.db),
        attempt=attempt.number,
        key=attempt.key,
        check=lambda: None,  # nobody competes
    )
