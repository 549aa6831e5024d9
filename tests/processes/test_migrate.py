"""``once run --migrate``: replicas that all start on an empty database."""

import signal
import sqlite3

import psycopg
import pytest

from tests.processes.migrations import write
from tests.project import LIVENESS, Project
from tests.waiting import GRACE, wait_until

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


#: Not atomic; and where there is such a thing, beside writers.
INDEX = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import connection, migrations, models

add = AddIndexConcurrently if connection.vendor == "postgresql" else migrations.AddIndex


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("plant", "0002_stock")]
    operations = [add("stock", models.Index(fields=["name"], name="stock_name"))]
"""
#: As Django writes one.
PLAIN_INDEX = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("plant", "0002_stock")]
    operations = [
        migrations.AddIndex("stock", models.Index(fields=["name"], name="stock_name"))
    ]
"""
BROKEN = """
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("plant", "0003_index")]
    operations = [migrations.RunPython(lambda apps, editor: 1 / 0)]
"""
STOCK = """
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = [("plant", "0001_fill")]
    operations = [
        migrations.CreateModel(
            "stock",
            [
                ("id", models.AutoField(primary_key=True)),
                ("name", models.CharField(max_length=9)),
            ],
        )
    ]
"""


def write_migrations(project: Project) -> None:
    """One that fills a table, one that creates one, and one that is not atomic."""
    write(project, "0001_fill", MIGRATION)
    project.release("migration")
    write(project, "0002_stock", STOCK)
    write(project, "0003_index", INDEX)


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer-5", "mariadb", "sqlite"])
def test_twenty_replicas_on_an_empty_database(project: Project) -> None:
    project.routines(SEED)
    write_migrations(project)
    replicas = [project.once("run", "--migrate") for _ in range(20)]
    codes = [replica.finish(120) for replica in replicas]
    assert codes == [0] * 20, "\n".join(replica.output for replica in replicas)
    assert project.effects() == ["migration", "more", "seed"]
    applied = [name for (name,) in project.rows("SELECT app || name FROM django_migrations")]
    assert "plant0003_index" in applied
    assert len(applied) == len(set(applied))
    assert project.attempts() == [("plant.more", 1, "succeeded"), ("plant.seed", 1, "succeeded")]


def test_half_migrated_database(project: Project) -> None:
    project.routines(SEED)
    write_migrations(project)
    assert project.manage("migrate", "plant", "0002").finish() == 0
    replicas = [project.once("run", "--migrate") for _ in range(3)]
    assert [replica.finish() for replica in replicas] == [0] * 3, replicas[0].output
    assert "plant.0002" not in "".join(replica.output for replica in replicas)
    # The "OK" of the last migration may stand in a buffer while events are logged to stderr.
    assert sum(r.output.count("Applying plant.0003_index...") for r in replicas) == 1
    applied = "SELECT count(*) FROM django_migrations WHERE name = '0003_index'"
    assert project.rows(applied) == [(1,)]
    assert project.effects() == ["migration", "more", "seed"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_interrupted_index_is_named_and_dropped_by_hand(project: Project) -> None:
    project.routines(SEED)
    write_migrations(project)
    assert project.manage("migrate", "plant", "0002").finish() == 0
    with psycopg.connect(project.admin_url) as writer:
        writer.execute("INSERT INTO plant_stock (name) VALUES ('x')")
        holder = project.once("run", "--migrate")  # waits for that transaction to end
        invalid = "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid " + (
            "WHERE NOT indisvalid"
        )
        wait_until(lambda: project.rows(invalid) == [("stock_name",)])
        waiters = [project.once("run", "--migrate") for _ in range(2)]
        for waiter in waiters:
            waiter.wait_for(project.named(holder))
        holder.kill()
        project.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%'"
        )
        assert [waiter.finish() for waiter in waiters] == [1, 1], waiters[0].output
    for waiter in waiters:
        assert "Migration plant.0003_index failed in database 'default'" in waiter.output
        assert '"stock_name" already exists' in waiter.output
        assert "perhaps an invalid index. Undo that by hand" in waiter.output
    project.execute("DROP INDEX CONCURRENTLY stock_name")
    successor = project.once("run", "--migrate")
    assert successor.finish() == 0, successor.output
    assert project.rows(invalid) == []
    assert project.effects() == ["migration", "more", "seed"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_back_end_whose_statements_are_no_transaction(project: Project) -> None:
    """django-pg-zero-downtime-migrations creates indexes concurrently, in any migration."""
    project.settings("default['ENGINE'] = 'django_zero_downtime_migrations.backends.postgres'")
    project.routines(SEED)
    write_migrations(project)
    write(project, "0003_index", PLAIN_INDEX)
    replicas = [project.once("run", "--migrate") for _ in range(3)]
    assert [replica.finish() for replica in replicas] == [0] * 3, replicas[0].output
    assert sum(r.output.count("Applying plant.0003_index...") for r in replicas) == 1
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'stock_name'::regclass"
    assert project.rows(valid) == [(True,)]
    assert project.effects() == ["migration", "more", "seed"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_tables_that_exist_already(project: Project) -> None:
    project.routines(SEED)
    write_migrations(project)
    project.execute("CREATE TABLE plant_stock (id serial PRIMARY KEY, name text NOT NULL)")
    refused = project.once("run", "--migrate")
    assert refused.finish() == 1
    assert "Migration plant.0002_stock failed" in refused.output
    assert "or run `manage.py migrate --fake-initial`" in refused.output
    assert project.manage("migrate", "--fake-initial").finish() == 0
    again = project.once("run", "--migrate")
    assert again.finish() == 0, again.output
    assert project.effects() == ["migration", "more", "seed"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_each_database_that_routines_or_options_name(project: Project) -> None:
    project.routines(
        """
        @routine
        def seed():
            effect("seed")

        @routine(using="sqlite", after=[seed])
        def more(run):
            Effect.objects.using(run.using).create(name="more")
        """
    )
    third = project.directory / "third.sqlite3"
    project.settings(
        f"DATABASES['third'] = {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': '{third}'}}"
    )
    replicas = [project.once("run", "--migrate") for _ in range(4)]
    assert [replica.finish() for replica in replicas] == [0] * 4, replicas[0].output
    assert project.effects() == ["seed"]
    with sqlite3.connect(project.directory / "second.sqlite3") as second:
        assert second.execute("SELECT name FROM shop_effect").fetchall() == [("more",)]
    second.close()
    assert not third.exists()
    named = [project.once("run", "--migrate", "--database", "third") for _ in range(2)]
    assert [one.finish() for one in named] == [0, 0], named[0].output
    assert sum(one.output.count("Applying once.0001_initial... OK") for one in named) == 1


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_holder_frozen_inside_a_migration(project: Project) -> None:
    project.routines(SEED)
    write(project, "0001_fill", MIGRATION)
    holder = project.once("run", "--migrate")
    project.wait_for("migration")
    waiter = project.once("run", "--migrate")
    waiter.wait_for(project.named(holder))
    holder.send(signal.SIGSTOP)
    assert project.wait_for("migration", processes=2) < LIVENESS + GRACE
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


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_second_run_touches_nothing(project: Project) -> None:
    project.routines(SEED)
    assert project.once("run", "--migrate").finish() == 0
    again = project.once("run", "--migrate")
    assert again.finish() == 0
    assert "Applying" not in again.output
    assert "No routines to run." in again.output


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_failing_migration_is_named_to_all_and_leaves_nothing(project: Project) -> None:
    project.routines(SEED)
    failure = 'hold("migration"); raise ValueError("bad")'
    write(project, "0001_fill", MIGRATION.replace('hold("migration")', failure))
    replicas = [project.once("run", "--migrate") for _ in range(3)]
    project.wait_for("migration")
    for replica in replicas:
        if replica.pid not in project.reached("migration"):
            replica.wait_for("migrations are applied by")
    project.release("migration")
    assert [replica.finish() for replica in replicas] == [1] * 3
    for replica in replicas:
        assert "Traceback (most recent call last)" in replica.output
        assert "Migration plant.0001_fill failed in database 'default': ValueError: bad. " in (
            replica.output
        )
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
    write(project, "0001_fill", source)
    process = project.once("run", "--migrate")
    assert process.finish() == 0, process.output
    assert project.effects() == ["migration", "more", "seed"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_system_check_that_fails_keeps_from_migrating(project: Project) -> None:
    project.routines(
        """
        from django.core import checks

        @checks.register
        def check(**kwargs):
            return [checks.Error("No such model.", id="plant.E001")]
        """
    )
    refused = project.once("run", "--migrate")
    assert refused.finish() == 2, refused.output
    assert "(plant.E001) No such model." in refused.output
    assert project.rows("SELECT 1 FROM pg_tables WHERE tablename LIKE 'once_%'") == []
    unchecked = project.once("run", "--migrate", "--skip-checks")
    assert unchecked.finish() == 0, unchecked.output


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_tables_that_were_lost_are_named_with_what_makes_them_again(project: Project) -> None:
    project.routines(SEED)
    assert project.once("run", "--migrate").finish() == 0
    for model in ("anchor", "completion", "attempt", "wish", "faileditem", "worker"):
        project.execute(f"DROP TABLE once_{model}")
    run = project.once("run", "--migrate")
    assert run.finish() == 1
    assert "The tables of once are missing, though their migration is recorded" in run.output
    assert project.manage("migrate", "once", "zero", "--fake").finish() == 0
    again = project.once("run", "--migrate")
    assert again.finish() == 0, again.output


@pytest.mark.parametrize("kind", ["postgresql"])
def test_missing_schema_is_named(project: Project) -> None:
    project.routines(SEED)
    url = f"{project.url}&options=-c%20search_path%3Dnowhere"
    process = project.once("run", "--migrate", DATABASE_URL=url, ONCE_STARTUP_TIMEOUT="1")
    assert process.finish() == 4
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


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer-5", "mariadb", "sqlite"])
def test_twenty_plain_migrates_at_once_on_an_empty_database(project: Project) -> None:
    project.routines(SEED)
    write_migrations(project)
    write(
        project, "0004_late", MIGRATION.replace('"shop", "0001_initial"', '"plant", "0003_index"')
    )
    project.settings("import tests.shop.steps\n")
    together = {
        "ONCE_LOCK_MIGRATE": "true",
        "TEST_HOLD": "django.core.management.base:BaseCommand.execute=start",
    }
    replicas = [project.manage("migrate", **together) for _ in range(20)]
    project.wait_for("start", processes=20)
    project.release("start")
    codes = [replica.finish() for replica in replicas]
    assert codes == [0] * 20, "\n".join(replica.output for replica in replicas)
    assert project.effects() == ["migration", "migration"]  # of each RunPython
    output = "".join(replica.output for replica in replicas)
    assert output.count("Applying plant.0001_fill...") == 1
    assert output.count("Applying plant.0004_late...") == 1
    applied = [name for (name,) in project.rows("SELECT app || name FROM django_migrations")]
    assert len(applied) == len(set(applied))
    assert "Waiting for" in output


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_locked_migrate_does_what_the_command_does(project: Project) -> None:
    project.routines(SEED)
    write_migrations(project)
    locked = {"ONCE_LOCK_MIGRATE": "true"}
    check = project.manage("migrate", "--check", **locked)
    assert check.finish() == 1
    assert project.manage("migrate", "--plan", **locked).finish() == 0
    first = project.manage("migrate", "plant", "0001", **locked)
    assert first.finish() == 0, first.output
    assert project.rows("SELECT name FROM django_migrations WHERE app = 'plant'") == [
        ("0001_fill",)
    ]
    run = project.once("run", "--migrate", **locked)
    assert run.finish() == 0, run.output
    again = project.manage("migrate", **locked)
    assert again.finish() == 0
    assert "No migrations to apply." in again.output
    unknown = project.manage("migrate", "plants", **locked)
    assert unknown.finish() == 1
    assert "No installed app with label 'plants'" in unknown.output
    write(project, "0004_broken", BROKEN)
    broken = project.manage("migrate", **locked)
    assert broken.finish() == 1
    assert "Migration plant.0004_broken failed in database 'default'" in broken.output
    assert broken.output.count("ZeroDivisionError") >= 1


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_handlers_of_post_migrate_run_once_for_each_release(project: Project) -> None:
    project.routines(SEED)
    write_migrations(project)
    (project.directory / "plant" / "models.py").touch()  # without, Django sends it nothing
    (project.directory / "plant" / "apps.py").write_text(
        """
from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PlantConfig(AppConfig):
    name = "plant"

    def ready(self):
        post_migrate.connect(print_it, sender=self)


def print_it(**kwargs):
    print("post_migrate of plant")
"""
    )
    told = []
    for release in ("", "", "1", "1", "2", "1"):
        run = project.once("run", "--migrate", ONCE_RELEASE=release)
        assert run.finish() == 0, run.output
        told.append(run.output.count("post_migrate of plant"))
    assert told == [1, 0, 1, 0, 1, 0]
