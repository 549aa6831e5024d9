"""For the tests of projects that keep seed data in routines."""

from django.db import transaction
from django.test import TestCase

from once import ledger, registry, runner
from once.ledger import Standing

__all__ = ["CompletedRoutines", "complete_routines"]


class _Run:
    """The ``run`` that a body gets in tests, where nobody competes."""

    def __init__(self, using: str, attempt: int, key: str) -> None:
        self.using = using
        self.attempt = attempt
        self.key = key

    def check(self) -> None:
        """Nothing to lose."""


def complete_routines() -> None:
    """Run and record what is pending, in the calling thread's transaction where it has one.

    No guard is taken: a test database belongs to one process. What a body raises is raised.
    """
    found = registry.load()
    for routine in found.recorded:
        if ledger.standing([routine])[routine.name] is Standing.OPEN:
            with transaction.atomic(using=routine.using):
                attempt = ledger.begin(routine, ledger.prospect(routine), "test")
                assert attempt is not None, "another process uses this test database"
                runner.call_body(routine, _Run(routine.using, attempt.number, attempt.key))
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
