"""``once run --migrate``: replicas that all start on an empty database."""

import signal
from pathlib import Path

import pytest

from tests.project import Project

SEED = """
    @routine
    def seed():
        effect("seed")


    @routine(after=[seed])
    def more():
        effect("more")
"""

MIGRATION = """
from django.db import migrations

from tests.shop.handshake import hold


def fill(apps, schema_editor):
    apps.get_model("shop", "Effect").objects.using(schema_editor.connection.alias).create(
        name="migration"
    )
    hold("migration")


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(fill, fill)]
"""


@pytest.fixture
def is_migrated() -> bool:
    return False


def write_migration(project: Project, source: str = MIGRATION) -> None:
    directory: Path = project.directory / "plant" / "migrations"
    directory.mkdir()
    (directory / "__init__.py").touch()
    (directory / "0001_fill.py").write_text(source)


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer-5", "sqlite"])
def test_twenty_replicas_on_an_empty_database(project: Project) -> None:
    project.routines(SEED)
    write_migration(project)
    project.release("migration")
    replicas = [project.once("run", "--migrate") for _ in range(20)]
    codes = [replica.finish(120) for replica in replicas]
    assert codes == [0] * 20, "\n".join(replica.output for replica in replicas)
    assert project.effects() == ["migration", "more", "seed"]
    applied = [name for (name,) in project.rows("SELECT app || name FROM django_migrations")]
    assert len(applied) == len(set(applied))
    assert project.attempts() == [("plant.more", 1, "succeeded"), ("plant.seed", 1, "succeeded")]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
def test_holder_frozen_inside_a_migration(project: Project) -> None:
    project.routines(SEED)
    write_migration(project)
    holder = project.once("run", "--migrate")
    project.wait_for("migration")
    waiter = project.once("run", "--migrate")
    waiter.wait_for(f"pid {holder.pid}")
    holder.send(signal.SIGSTOP)
    assert project.wait_for("migration", processes=2) < 2 + 1
    project.release("migration")
    assert waiter.finish() == 0, waiter.output
    holder.send(signal.SIGCONT)
    assert holder.finish() == 0, holder.output  # it polls, and finds everything done
    assert project.effects() == ["migration", "more", "seed"]


def test_holder_killed_after_the_last_migration_leaves_post_migrate_to_the_next(
    project: Project,
) -> None:
    project.routines(SEED)
    hold_at = "django.core.management.commands.migrate:emit_post_migrate_signal=post"
    holder = project.once("run", "--migrate", TEST_HOLD=hold_at)
    project.wait_for("post")
    assert project.rows("SELECT count(*) FROM auth_permission") == [(0,)]
    holder.kill()
    successor = project.once("run", "--migrate")
    assert successor.finish() == 0, successor.output
    assert project.rows("SELECT count(*) FROM auth_permission")[0][0] > 0
    assert project.effects() == ["more", "seed"]


def test_second_run_touches_nothing(project: Project) -> None:
    project.routines(SEED)
    assert project.once("run", "--migrate").finish() == 0
    again = project.once("run", "--migrate")
    assert again.finish() == 0
    assert "Applying" not in again.output
    assert "No routines to run." in again.output


def test_failing_migration_is_reported_and_leaves_nothing(project: Project) -> None:
    project.routines(SEED)
    write_migration(project, MIGRATION.replace('hold("migration")', 'raise ValueError("bad")'))
    failing = project.once("run", "--migrate")
    assert failing.finish() == 1
    assert "ValueError: bad" in failing.output
    assert project.effects() == []


@pytest.mark.parametrize("kind", ["postgresql"])
def test_migration_that_migrates_another_database(project: Project) -> None:
    project.routines(SEED)
    source = MIGRATION.replace(
        'hold("migration")',
        "from django.core.management import call_command\n"
        '    if schema_editor.connection.alias == "default":\n'
        '        call_command("migrate", database="sqlite", verbosity=0)',
    )
    write_migration(project, source)
    process = project.once("run", "--migrate")
    assert process.finish() == 0, process.output
    assert project.effects() == ["migration", "more", "seed"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_missing_schema_is_named(project: Project) -> None:
    project.routines(SEED)
    url = f"{project.url}&options=-c%20search_path%3Dnowhere"
    process = project.once("run", "--migrate", DATABASE_URL=url)
    assert process.finish() == 1
    assert "no schema has been selected to create in" in process.output


@pytest.mark.parametrize("kind", ["sqlite"])
def test_handler_that_runs_routines_within_a_migrate_is_refused(project: Project) -> None:
    project.routines(
        """
        from django.core.management import call_command
        from django.db.models.signals import post_migrate

        @routine
        def seed():
            effect("seed")

        def handler(**kwargs):
            call_command("once", "run")

        post_migrate.connect(handler)
        """
    )
    process = project.once("run", "--migrate")
    assert process.finish() == 1, process.output
    assert "Do it after that run" in process.output
