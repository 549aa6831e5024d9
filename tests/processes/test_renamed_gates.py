"""A routine that a migration needs by the name that it had before."""

import pytest

from tests.processes.migrations import BASE, FILL, GATE, MODELS, write
from tests.project import Project

RENAMED = FILL.replace("@routine(", '@routine(renamed_from="plant.fill", ').replace(
    "def fill(", "def fill_slugs("
)

KINDS = pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])


@pytest.fixture
def is_migrated() -> bool:
    return False


@pytest.fixture
def filled(project: Project) -> Project:
    """A release with a table and its rows; the next one fills a column, by the old name."""
    project.routines(FILL)
    (project.directory / "plant" / "models.py").write_text(MODELS)
    write(project, "0001_item", BASE)
    assert project.manage("migrate", "-v0").finish() == 0
    for name in "abcde":
        project.execute(f"INSERT INTO plant_item (name, slug) VALUES ('{name}', '')")
    write(project, "0002_slug", GATE)
    return project


def half_way(project: Project) -> None:
    """Be killed in the second batch."""
    killed = project.manage("migrate", "-v0", TEST_HOLD="once.record.recorder:advance=after:one")
    project.wait_for("fill")
    project.release("fill")
    project.wait_for("one")
    killed.kill()


def names(project: Project) -> list[str]:
    return [name for (name,) in project.rows("SELECT slug FROM plant_item ORDER BY slug")]


@KINDS
def test_gate_means_the_routine_by_its_old_name(filled: Project) -> None:
    half_way(filled)
    filled.routines(RENAMED)
    plan = filled.once("status")
    assert plan.finish() == 0
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 0, migrate.output
    assert [name[0] for name in names(filled)] == [*"abcde"]
    assert filled.completions() == ["plant.fill", "plant.fill_slugs"]
    for release in (FILL, RENAMED):
        filled.routines(release)
        assert filled.once("status", "--check").finish() == 0
        assert filled.once("run", "--migrate").finish() == 0


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])  # where DDL can be undone
def test_migration_that_a_renamed_routine_was_done_for_is_undone(filled: Project) -> None:
    filled.release("fill")
    assert filled.manage("migrate", "-v0").finish() == 0
    filled.routines(RENAMED)
    undo = filled.manage("migrate", "-v0", "plant", "0001")
    assert undo.finish() == 1
    assert "record stands under its old name plant.fill. First have that carried" in undo.output
    assert filled.once("run").finish() == 0
    reset = filled.once("reset", "plant.fill", "--noinput")
    assert reset.finish() == 2
    assert "A migration that is applied needed plant.fill_slugs" in reset.output
    undo = filled.manage("migrate", "-v0", "plant", "0001")
    assert undo.finish() == 0, undo.output
    assert filled.completions() == ["plant.fill"]
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 0, migrate.output
    assert filled.completions() == ["plant.fill", "plant.fill_slugs"]


@KINDS
def test_older_release_does_not_migrate_before_it_is_done_by_its_new_name(filled: Project) -> None:
    """Its routine is superseded, which counts as done elsewhere."""
    half_way(filled)
    filled.routines(RENAMED)
    carried = filled.manage("migrate", "-v0", TEST_HOLD="once.engine.batching:go_through=go")
    filled.wait_for("go")
    carried.kill()
    assert "plant.fill" in filled.completions()
    filled.routines(FILL)
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 1
    assert "The routine plant.fill is not done, and a migration needs it" in migrate.output
    filled.routines(RENAMED)
    assert filled.manage("migrate", "-v0").finish() == 0
    assert [name[0] for name in names(filled)] == [*"abcde"]
