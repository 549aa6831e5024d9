"""Hooks that fail after the commit: what is done is done, and the failure is reported."""

import pytest

from tests.project import Project

pytestmark = pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])

FAIL = """
    def fail():
        raise ValueError("no such hook")
"""


def test_hook_of_an_atomic_and_of_a_batched_routine(project: Project) -> None:
    project.routines(
        FAIL
        + """
    @routine
    def seed():
        effect("seed")
        transaction.on_commit(fail)

    @routine(over=lambda: range(1, 6), batch_size=2)
    def fill(items):
        for item in items:
            effect(f"fill{item}")
        if 3 in items:
            transaction.on_commit(fail)
    """
    )
    process = project.once("run")
    assert process.finish() == 0, process.output
    assert (
        process.output.count("  Done and recorded, but afterwards: ValueError: no such hook") == 2
    )
    assert project.effects() == [*(f"fill{n}" for n in range(1, 6)), "seed"]
    assert project.attempts() == [("plant.fill", 1, "succeeded"), ("plant.seed", 1, "succeeded")]
    again = project.once("run")
    assert again.finish() == 0
    assert "No routines to run" in again.output


def test_hook_of_an_external_routine_is_part_of_its_body(project: Project) -> None:
    project.routines(
        FAIL
        + """
    @routine(atomic=False)
    def in_autocommit():
        effect("in_autocommit")
        transaction.on_commit(fail)

    @routine(atomic=False)
    def in_atomic():
        with transaction.atomic():
            effect("in_atomic")
            transaction.on_commit(fail)
    """
    )
    process = project.once("run", "--keep-going")
    assert process.finish() == 1, process.output
    assert project.effects() == ["in_atomic", "in_autocommit"]
    assert project.completions() == []
    assert project.attempts() == [
        ("plant.in_atomic", 1, "failed"),
        ("plant.in_autocommit", 1, "failed"),
    ]
    errors = [routine["error"] for routine in project.status().values()]
    assert ["ValueError: no such hook" in error for error in errors] == [True, True]
