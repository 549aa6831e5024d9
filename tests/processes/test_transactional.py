"""Tests that flush their databases: effects and record go together, and are completed again."""

import sys
import textwrap

import pytest

from tests.project import IN_PROCESSES, Project
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(databases=[])

ROUTINES = """
    calls = []

    @routine
    def seed():
        Effect.objects.create(name="seed")

    @routine(using="sqlite")
    def second(run):
        Effect.objects.using(run.using).create(name="second")

    @routine(scope="process")
    def memory():
        calls.append(1)
"""
CASES = """
    from django.test import TestCase, TransactionTestCase
    from once.models import Completion
    from once.testing import CompletedRoutinesMixin
    from plant.routines import calls
    from tests.shop.models import Effect

    def names(model, field, using="default"):
        return list(model.objects.using(using).values_list(field, flat=True).order_by(field))

    class Checks:
        def check(self):
            for using, name in {"default": "seed", "sqlite": "second"}.items():
                if using in self.databases:
                    self.assertEqual(names(Effect, "name", using), [name])
                    self.assertEqual(names(Completion, "routine", using), [f"plant.{name}"])
            Effect.objects.create(name="of this test")
            self.assertEqual(calls, [1])  # memory is not flushed, nor filled again

        test_one = test_two = check

    class Each(CompletedRoutinesMixin, Checks, TestCase):
        databases = {"default", "sqlite"}

    class Flushing(CompletedRoutinesMixin, Checks, TransactionTestCase):
        pass

    class FlushingBoth(CompletedRoutinesMixin, Checks, TransactionTestCase):
        databases = {"default", "sqlite"}

    class FlushingAll(CompletedRoutinesMixin, Checks, TransactionTestCase):
        databases = "__all__"

        def check(self):
            self.databases = {"default", "sqlite"}
            super().check()

    class Serialized(CompletedRoutinesMixin, Checks, TransactionTestCase):
        serialized_rollback = True
        databases = {"default", "sqlite"}

    class Unaware(TransactionTestCase):
        def test_flush_took_effect_and_record_together(self):
            self.assertEqual(names(Effect, "name"), [])
            self.assertEqual(names(Completion, "routine"), [])
"""
FIXTURES = """
    import pytest
    from django.core.management import call_command
    from once.models import Completion
    from plant.routines import calls
    from tests.shop.models import Effect

    both = ["default", "sqlite"]

    @pytest.fixture(autouse=True, scope="session")
    def seeded(once_routines):
        pass

    def check(*databases):
        for using in databases:
            name = {"default": "seed", "sqlite": "second"}[using]
            effects = Effect.objects.using(using)
            assert list(effects.values_list("name", flat=True)) == [name]
            [completion] = Completion.objects.using(using).all()
            assert completion.routine == f"plant.{name}"
        Effect.objects.create(name="of this test")
        assert calls == [1]

    @pytest.mark.django_db
    def test_one(once_completed):
        check("default")

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("_", range(2))
    def test_flushing(once_completed, _):
        check("default")

    @pytest.mark.django_db(transaction=True, databases=both)
    @pytest.mark.parametrize("_", range(2))
    def test_flushing_both(once_completed, _):
        check(*both)

    @pytest.mark.django_db(transaction=True, serialized_rollback=True, databases="__all__")
    @pytest.mark.parametrize("_", range(2))
    def test_serialized(once_completed, _):
        check(*both)

    @pytest.mark.django_db(transaction=True)
    def test_flush_takes_effect_and_record_together(once_completed):
        check("default")
        call_command("flush", interactive=False, verbosity=0)
        assert not Effect.objects.exists() and not Completion.objects.exists()

    @pytest.mark.parametrize("_", range(2))
    def test_without_a_mark(once_completed, _):
        check("default")

    def test_asked_for_transactions_by_fixture(once_completed, transactional_db):
        check("default")
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def run(project: Project, tests: str, *command: str) -> str:
    project.routines(ROUTINES)
    (project.directory / "plant" / "tests.py").write_text(textwrap.dedent(tests))
    (project.directory / "pytest.ini").write_text("[pytest]\n")
    # Without content types, which Django itself makes twice where only some tests are serialized.
    apps = "once,tests.shop,plant"
    environment = {**IN_PROCESSES, "PYTEST_ADDOPTS": "", "TEST_APPS": apps}
    process = project.start(sys.executable, "-m", *command, **environment)
    assert process.finish(3 * PATIENCE) == 0, process.output
    return process.output


def test_mixin_completes_what_a_flush_took(project: Project) -> None:
    output = run(project, CASES, "tests.manage", "test", "--noinput", "plant")
    assert "Ran 11 tests" in output


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_fixture_completes_what_a_flush_took(project: Project, workers: str) -> None:
    path, ini = project.directory / "plant" / "tests.py", project.directory / "pytest.ini"
    command = ("pytest", "-c", f"{ini}", "-p", "no:cacheprovider", "--ds=tests.settings", workers)
    assert "11 passed" in run(project, FIXTURES, *command, f"{path}")
