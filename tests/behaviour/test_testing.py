"""What the tests of projects are given to complete routines in their test databases."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
import unittest
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import TestCase

from once import Routine, Run
from once.record.standing import Standing
from once.testing import CompletedRoutinesMixin, complete_routines
from tests.shop.models import Effect
from tests.support import attempts, effects, last, run, seed, standings

in_a_transaction = pytest.mark.django_db(databases=["default", "sqlite"])
outside = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


TRANSACTIONS = [
    pytest.param(True, marks=in_a_transaction, id="inside"),
    pytest.param(False, marks=outside, id="outside"),
]


@pytest.mark.parametrize("in_atomic_block", TRANSACTIONS)
def test_routines_are_completed_once(
    in_atomic_block: bool, using: str, declared: list[Routine]
) -> None:
    assert connections[using].in_atomic_block is in_atomic_block
    declared += [seed(using, "b", after=["a"]), seed(using, "a"), seed(using, "c", startup=False)]
    complete_routines()
    complete_routines()
    assert effects(using) == ["a", "b", "c"]
    assert set(standings(*declared).values()) == {Standing.DONE}
    assert attempts(using) == [(name, 1, "succeeded") for name in "abc"]


@pytest.mark.parametrize("in_atomic_block", TRANSACTIONS)
def test_body_that_raises_is_raised_and_leaves_a_failed_attempt(
    in_atomic_block: bool, using: str, declared: list[Routine]
) -> None:
    assert connections[using].in_atomic_block is in_atomic_block

    def body() -> None:
        Effect.objects.using(using).create(name="undone")
        raise LookupError

    declared.append(seed(using, function=body))
    with pytest.raises(LookupError):
        complete_routines()
    assert effects(using) == []
    assert attempts(using) == [("shop.seed", 1, "failed")]
    assert standings(*declared) == {"shop.seed": Standing.OPEN}


@pytest.mark.parametrize("in_atomic_block", TRANSACTIONS)
def test_batched_routine_is_completed_batch_by_batch_without_rest(
    in_atomic_block: bool,
    using: str,
    declared: list[Routine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert connections[using].in_atomic_block is in_atomic_block
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"slept for {seconds} s"))

    def body(batch: list[int], run: Run) -> None:
        Effect.objects.using(run.using).create(name=f"{batch}")

    declared.append(seed(using, function=body, over=lambda: [1, 2, 3], batch_size=2, rest=3_600.0))
    complete_routines()
    complete_routines()
    assert effects(using) == ["[1, 2]", "[3]"]
    assert attempts(using) == [("shop.seed", 1, "succeeded")]
    assert last(using).processed == 3


@pytest.mark.parametrize("in_atomic_block", TRANSACTIONS)
def test_external_routine_is_recorded_and_not_called(
    in_atomic_block: bool, using: str, declared: list[Routine]
) -> None:
    assert connections[using].in_atomic_block is in_atomic_block
    declared += [seed(using, atomic=False), seed(using, "shop.rest", after=["shop.seed"])]
    complete_routines()
    assert effects(using) == ["shop.rest"]
    assert standings(*declared) == {"shop.seed": Standing.DONE, "shop.rest": Standing.DONE}
    assert last(using).trigger == "test"


@in_a_transaction
def test_process_routine_is_left_alone(declared: list[Routine]) -> None:
    declared.append(Routine(function=pytest.fail, name="in_memory", scope="process"))
    complete_routines()


@in_a_transaction
def test_only_the_databases_named_are_completed(declared: list[Routine]) -> None:
    declared += [seed("default", "a"), seed("sqlite", "b")]
    complete_routines(["sqlite"])
    assert (effects("default"), effects("sqlite")) == ([], ["b"])


@in_a_transaction
def test_body_gets_a_run(using: str, declared: list[Routine]) -> None:
    got: list[Run] = []
    declared.append(seed(using, function=lambda run: got.append(run)))
    complete_routines()
    (handle,) = got
    handle.check()
    assert (handle.using, handle.attempt, len(handle.key)) == (using, 1, 32)


@outside
def test_what_was_completed_is_done_for_the_runner(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    complete_routines()
    assert [str(result.outcome) for result in run(declared[0])] == ["already_done"]


@outside
def test_mixin_completes_again_after_a_flush(using: str, declared: list[Routine]) -> None:
    seen: list[list[str]] = []

    class Case(CompletedRoutinesMixin, TestCase):
        databases = {"default", "sqlite"}  # type: ignore[misc]

        def test_one(self) -> None:
            seen.append(effects(using))
            Effect.objects.using(using).create(name="of this test")

        def test_two(self) -> None:
            seen.append(effects(using))

    declared.append(seed(using))
    complete_routines()
    call_command("flush", database=using, interactive=False, verbosity=0)
    assert effects(using) == []
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.testsRun == 2
    assert result.errors + result.failures == []
    assert seen == [["shop.seed"], ["shop.seed"]]
    assert effects(using) == []


SETTINGS = """
    SECRET_KEY = "x"
    INSTALLED_APPS = ["once", "plant"]
    ENGINE = "django.db.backends.sqlite3"
    DATABASES = {
        "default": {"ENGINE": ENGINE, "NAME": "db.sqlite3"},
        "other": {"ENGINE": ENGINE, "NAME": "other.sqlite3"},
    }
"""
ROUTINES = """
    from once import routine

    calls = []

    @routine
    def seed():
        calls.append(1)

    @routine(using="other")
    def seed_other(run):
        calls.append(2)
"""
TESTS = """
    import pytest
    from once.models import Completion

    def names():
        return list(Completion.objects.values_list("routine", flat=True))

    @pytest.mark.django_db
    def test_before_the_fixture_nothing_ran():
        assert names() == []

    @pytest.mark.django_db
    @pytest.mark.parametrize("_", range(2))
    def test_fixture(once_routines, _):
        from plant.routines import calls

        assert names() == ["plant.seed"]
        assert calls == [1]

    @pytest.mark.django_db
    def test_effects_stay_for_the_session():
        assert names() == ["plant.seed"]
"""


TESTS_OF_BOTH = """
    import pytest
    from once.models import Completion

    @pytest.mark.django_db(databases=["default", "other"])
    def test_both(once_routines):
        for using, name in (("default", "plant.seed"), ("other", "plant.seed_other")):
            assert [one.routine for one in Completion.objects.using(using).all()] == [name]
"""
TESTS_OF_NONE = """
    import pytest

    @pytest.fixture(scope="session", autouse=True)
    def seeded(once_routines):
        pass

    def test_nothing():
        from plant.routines import calls

        assert calls == []
"""


@pytest.mark.slow
@pytest.mark.django_db(databases=[])
@pytest.mark.parametrize(
    ("tests", "passed", "made"),
    [
        (TESTS, 4, {"default"}),
        (TESTS_OF_BOTH, 1, {"default", "other"}),
        (TESTS_OF_NONE, 1, set[str]()),
    ],
    ids=["default", "both", "none"],
)
def test_fixture_of_the_plugin_completes_the_test_databases_once(
    tmp_path: Path, tests: str, passed: int, made: set[str]
) -> None:
    (tmp_path / "plant").mkdir()
    files = {
        "settings.py": SETTINGS,
        "plant/__init__.py": "",
        "plant/routines.py": ROUTINES,
        "test_plant.py": tests,
        "pytest.ini": "[pytest]\npythonpath = .",
    }
    for name, source in files.items():
        (tmp_path / name).write_text(textwrap.dedent(source))
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}  # its tests are to share a process
    for alias in ("default", "other"):  # the real ones, where a project is in use
        migrate = ["-m", "django", "migrate", "-v0", f"--database={alias}", "--settings=settings"]
        real = {**environment, "PYTHONPATH": "."}
        subprocess.run([sys.executable, *migrate], cwd=tmp_path, env=real, check=True)
    command = [sys.executable, "-m", "pytest", "--ds=settings", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"{passed} passed" in done.stdout, done.stdout + done.stderr
    # Of those that no test names pytest-django makes none: they are the real ones.
    for alias, file in (("default", "db"), ("other", "other")):
        if alias not in made:
            with closing(sqlite3.connect(tmp_path / f"{file}.sqlite3")) as record:
                assert record.execute("SELECT routine FROM once_completion").fetchall() == []
