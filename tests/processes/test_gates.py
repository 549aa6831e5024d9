"""``RunRoutine`` in a migration: completed before what follows, by any ``migrate``."""

import signal
import time
from urllib.parse import urlsplit

import pytest

from tests.processes.migrations import BASE, FILL, GATE, MODELS, write, write_gate
from tests.project import LIVENESS, Project
from tests.servers import PgBouncer
from tests.waiting import GRACE

SLUGS = ["a-1", "b-1", "c-1", "d-1", "e-1"]

MIGRATE = [["migrate", "-v0"], ["once", "run", "--migrate"]]


@pytest.fixture
def is_migrated() -> bool:
    return False


@pytest.fixture
def filled(project: Project) -> Project:
    """A release with a table and its rows, and the next one, which fills a column and drops one."""
    project.routines(FILL)
    (project.directory / "plant" / "models.py").write_text(MODELS)
    write(project, "0001_item", BASE)
    project.release("fill")
    assert project.manage("migrate", "-v0").finish() == 0
    for name in "abcde":
        project.execute(f"INSERT INTO plant_item (name, slug) VALUES ('{name}', '')")
    write(project, "0002_slug", GATE)
    return project


def slugs(project: Project) -> list[str]:
    return [slug for (slug,) in project.rows("SELECT slug FROM plant_item ORDER BY slug")]


def app(project: Project, label: str, name: str, *operations: str, after: str = "") -> None:
    """Write a migration of another app than ``plant``, after some migration as ``app.name``."""
    directory = project.directory / label
    (directory / "migrations").mkdir(parents=True, exist_ok=True)
    (directory / "__init__.py").touch()
    (directory / "migrations" / "__init__.py").touch()
    dependencies = [tuple(each.split(".")) for each in after.split()]
    (directory / "migrations" / f"{name}.py").write_text(
        "from django.db import migrations, models\n"
        "from once.operations import RunRoutine\n"
        "class Migration(migrations.Migration):\n"
        f"    dependencies = {dependencies}\n"
        f"    operations = [{', '.join(operations)}]\n"
    )
    labels = project.environment["TEST_APPS"].split(",")
    project.environment["TEST_APPS"] = ",".join(dict.fromkeys([*labels, label]))


def model(name: str, **fields: str) -> str:
    listed = ", ".join(f"({each!r}, models.{field})" for each, field in fields.items())
    return (
        f"migrations.CreateModel({name!r}, [('id', models.AutoField(primary_key=True)), {listed}])"
    )


@pytest.mark.parametrize("command", MIGRATE, ids=" ".join)
def test_routine_is_completed_before_the_migration(filled: Project, command: list[str]) -> None:
    migrate = filled.manage(*command)
    assert migrate.finish() == 0, migrate.output
    assert slugs(filled) == SLUGS
    assert filled.completions() == ["plant.fill"]
    assert filled.rows("SELECT name FROM django_migrations WHERE app = 'plant'")[-1:] == [
        ("0002_slug",)
    ]


@pytest.mark.parametrize("command", MIGRATE, ids=" ".join)
def test_empty_database(project: Project, command: list[str]) -> None:
    write_gate(project)
    migrate = project.manage(*command)
    assert migrate.finish() == 0, migrate.output
    assert project.completions() == ["plant.fill"]
    assert project.reached("fill") == []


def test_one_app_brings_the_tables_of_the_record(project: Project) -> None:
    write_gate(project)
    migrate = project.manage("migrate", "-v0", "plant")
    assert migrate.finish() == 0, migrate.output
    assert project.completions() == ["plant.fill"]


@pytest.mark.parametrize("command", MIGRATE, ids=" ".join)
def test_killed_in_the_middle_goes_on_where_it_stopped(filled: Project, command: list[str]) -> None:
    (filled.directory / "handshake" / "fill.go").unlink()
    killed = filled.manage(*command, TEST_HOLD="")
    filled.wait_for("fill")
    killed.kill()
    filled.release("fill")
    migrate = filled.manage(*command)
    assert migrate.finish() == 0, migrate.output
    assert [slug[0] for slug in slugs(filled)] == [*"abcde"]
    assert filled.attempts() == [("plant.fill", 1, "lost"), ("plant.fill", 2, "succeeded")]


def test_routine_runs_before_its_migration_on_the_models_of_then(filled: Project) -> None:
    run = filled.once("run")
    assert run.finish() == 0, run.output
    assert slugs(filled) == SLUGS
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 0, migrate.output
    assert filled.attempts() == [("plant.fill", 1, "succeeded")]


def test_migration_runs_a_routine_of_any_role(filled: Project) -> None:
    filled.routines(FILL.replace("last_pass=True", 'last_pass=True, role="worker"'))
    run = filled.once("run", ONCE_ROLE="web")
    assert run.finish() == 0, run.output
    assert filled.attempts() == []
    migrate = filled.manage("migrate", "-v0", ONCE_ROLE="web")
    assert migrate.finish() == 0, migrate.output
    assert filled.attempts() == [("plant.fill", 1, "succeeded")]


def test_routine_is_blocked_before_the_dependencies_of_its_gate(project: Project) -> None:
    project.routines(FILL)
    (project.directory / "plant" / "models.py").write_text(MODELS)
    assert project.manage("migrate", "-v0").finish() == 0
    write(project, "0001_item", BASE)
    write(project, "0002_slug", GATE)
    run = project.once("run")
    assert run.finish() == 3
    assert "lacks migrations of this code (plant.0001_item)" in run.output, run.output
    assert project.attempts() == []


def test_failing_routine_stops_the_migration(filled: Project) -> None:
    filled.routines(FILL.replace('hold("fill")', 'raise ValueError("no such slug")'))
    for command in MIGRATE:
        migrate = filled.manage(*command)
        assert migrate.finish() == 1
        assert "Migration plant.0002_slug needs the routine plant.fill, which is not done" in (
            migrate.output
        ), migrate.output
        # Once in the log; the command of this package prints it, too.
        count = migrate.output.count("ValueError: no such slug\n")
        assert count == 1 + (command[0] == "once"), migrate.output
    assert slugs(filled) == [""] * 5
    filled.routines(FILL)
    assert filled.manage("migrate", "-v0").finish() == 0
    assert len(slugs(filled)) == 5


@pytest.mark.parametrize("kind", ["sqlite"])
def test_plain_migrate_that_is_refused_ends_with_a_message(filled: Project) -> None:
    assert filled.once("pause", "plant.fill").finish() == 0
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 1
    message = "Paused: Migration plant.0002_slug needs the routine plant.fill, which is not done."
    assert migrate.output.splitlines()[-1].startswith(message), migrate.output
    assert "Traceback" not in migrate.output
    whole = filled.manage("migrate", "-v0", "--traceback")
    assert whole.finish() == 1
    assert "Traceback (most recent call last):" in whole.output
    assert message in whole.output


#: The routine goes on behind an item that fails.
LENIENT = FILL.replace("last_pass=True", "last_pass=True, max_errors=3")
FAILING = LENIENT.replace(
    "for item in items:",
    "for item in items:\n            if item.name == 'c':\n                raise ValueError",
)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_failed_items_stop_the_migration_until_they_are_done(filled: Project) -> None:
    filled.routines(FAILING)
    for command, code in zip(MIGRATE, (1, 3), strict=True):
        migrate = filled.manage(*command)
        assert migrate.finish() == code, migrate.output
        assert "A migration needs the routine plant.fill, of which items failed." in migrate.output
        assert "1 item failed: `manage.py once items plant.fill` lists" in migrate.output
        assert "pass allow_failed_items=True to its RunRoutine." in migrate.output
    assert filled.completions() == ["plant.fill"]
    assert slugs(filled) == ["", "a-1", "b-1", "d-1", "e-1"]
    filled.routines(LENIENT)
    assert filled.once("run", "--failed-items", "plant.fill").finish() == 0
    assert filled.manage("migrate", "-v0").finish() == 0
    assert slugs(filled) == ["a-1", "b-1", "c-2", "d-1", "e-1"]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
@pytest.mark.parametrize("command", MIGRATE, ids=" ".join)
def test_migration_may_do_without_failed_items(filled: Project, command: list[str]) -> None:
    """Rows of old code are done, and the failed item is not called for again."""
    filled.routines(FAILING)
    gate = GATE.replace('"plant.fill"', '"plant.fill", allow_failed_items=True')
    write(filled, "0002_slug", gate)
    assert filled.once("run").finish() == 0
    if not filled.is_mysql:
        filled.execute("INSERT INTO plant_item (name, slug) VALUES ('straggler', '')")
    migrate = filled.manage(*command)
    assert migrate.finish() == 0, migrate.output
    stragglers = [] if filled.is_mysql else ["straggler-0"]
    assert slugs(filled) == ["", "a-1", "b-1", "d-1", "e-1", *stragglers]


# MariaDB cannot undo what a migration did before.
@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "sqlite"])
def test_rows_that_old_code_writes_meanwhile_are_done(filled: Project) -> None:
    assert filled.once("run").finish() == 0
    filled.execute("INSERT INTO plant_item (name, slug) VALUES ('straggler', '')")
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 0, migrate.output
    assert slugs(filled) == [*SLUGS, "straggler-0"]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
@pytest.mark.parametrize("command", MIGRATE, ids=" ".join)
def test_more_rows_of_old_code_than_a_migration_does_are_done_before_it(
    filled: Project, command: list[str]
) -> None:
    assert filled.once("run").finish() == 0
    names = [f"old{number:02}" for number in range(31)]
    rows = ", ".join(f"('{name}', '')" for name in names)
    filled.execute(f"INSERT INTO plant_item (name, slug) VALUES {rows}")
    migrate = filled.manage(*command)
    assert migrate.finish() == 0, migrate.output
    assert slugs(filled) == [*SLUGS, *(f"{name}-0" for name in names)]


def test_undone_migration_makes_the_routine_pending_again(filled: Project) -> None:
    assert filled.manage("migrate", "-v0").finish() == 0
    back = filled.manage("migrate", "-v0", "plant", "0001")
    assert back.finish() == 0, back.output
    assert filled.completions() == []
    assert filled.status()["plant.fill"]["state"] == "pending"
    again = filled.manage("migrate", "-v0")
    assert again.finish() == 0, again.output
    assert filled.attempts() == [("plant.fill", number, "succeeded") for number in (1, 2, 3)]


def test_faked_migration_completes_nothing_and_says_so(filled: Project) -> None:
    migrate = filled.manage("migrate", "-v0", "--fake", "plant")
    assert migrate.finish() == 0
    assert "record them: `manage.py once run --fake plant.fill`" in migrate.output
    assert filled.attempts() == []


# What follows is the same on each kind.
@pytest.mark.parametrize("kind", ["sqlite"])
def test_routine_without_the_models_of_its_migration_is_told(filled: Project) -> None:
    filled.routines("""
    @routine
    def fill():
        with connection.cursor() as cursor:
            cursor.execute("UPDATE plant_item SET slug = name")
    """)
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 0, migrate.output
    assert "event=gate routine=plant.fill" in migrate.output
    assert "those that migration plant.0002_slug finds" in migrate.output


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer-5", "mariadb", "sqlite"])
def test_ten_replicas(filled: Project) -> None:
    replicas = [filled.once("run", "--migrate") for _ in range(10)]
    assert [replica.finish(120) for replica in replicas] == [0] * 10, replicas[0].output
    assert slugs(filled) == SLUGS
    assert filled.attempts() == [("plant.fill", 1, "succeeded")]


# A frozen holder keeps SQLite's lock.
@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_holder_that_freezes_is_taken_over(filled: Project) -> None:
    (filled.directory / "handshake" / "fill.go").unlink()
    holder = filled.once("run", "--migrate")
    filled.wait_for("fill")
    waiter = filled.once("run", "--migrate")
    waiter.wait_for(filled.named(holder))
    holder.send(signal.SIGSTOP)
    assert filled.wait_for("fill", processes=2) < LIVENESS + GRACE
    filled.release("fill")
    assert waiter.finish() == 0, waiter.output
    holder.send(signal.SIGCONT)
    assert holder.finish() == 0, holder.output
    assert [slug[0] for slug in slugs(filled)] == [*"abcde"]


# SQLite has one lock for routines and migrations, so that no migration has begun.
@pytest.mark.parametrize(("option", "code"), [("--timeout=3", 4), ("--no-wait", 3)])
def test_limits_of_the_command_hold_for_a_routine_that_another_process_runs(
    filled: Project, option: str, code: int
) -> None:
    (filled.directory / "handshake" / "fill.go").unlink()
    holder = filled.once("run")
    filled.wait_for("fill")
    migrate = filled.once("run", "--migrate", option)
    assert migrate.finish() == code, migrate.output
    assert filled.named(holder) in migrate.output
    filled.release("fill")
    assert holder.finish() == 0, holder.output


def test_external_routine_of_an_undone_migration_waits_for_a_person(filled: Project) -> None:
    filled.routines("""
    @routine(atomic=False)
    def fill(apps):
        for item in apps.get_model("plant", "Item").objects.all():
            item.slug = item.name
            item.save()
    """)
    assert filled.manage("migrate", "-v0").finish() == 0
    back = filled.manage("migrate", "-v0", "plant", "0001")
    assert back.finish() == 0, back.output
    assert filled.status()["plant.fill"]["state"] == "held"
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 1
    assert "plant.fill, which is not done" in migrate.output


def test_unfit_gates_are_refused_before_anything_is_applied(filled: Project) -> None:
    cases = {
        "stands behind another operation": (
            FILL,
            GATE.replace('RunRoutine("plant.fill"),', "").replace(
                '"name"),', '"name"),\n        RunRoutine("plant.fill"),'
            ),
        ),
        "stands behind another operation, or in one": (
            FILL,
            GATE.replace(
                'RunRoutine("plant.fill")',
                'migrations.SeparateDatabaseAndState([RunRoutine("plant.fill")])',
            ),
        ),
        "needs the routine 'plant.fil', which this code does not have": (
            FILL,
            GATE.replace('"plant.fill"', '"plant.fil"'),
        ),
        "may have neither version= nor a scope": (
            FILL.replace("batch_size=2", "batch_size=2, version=2"),
            GATE,
        ),
    }
    for message, (routines, migration) in cases.items():
        filled.routines(routines)
        write(filled, "0002_slug", migration)
        migrate = filled.manage("migrate", "-v0")
        assert migrate.finish() == 1
        assert message in migrate.output
        run = filled.once("run", "--migrate")
        assert run.finish() == 1
        assert message in run.output
        assert "Traceback" not in run.output
    assert filled.attempts() == []


def test_reset_of_what_an_applied_migration_needed_is_forced(filled: Project) -> None:
    assert filled.manage("migrate", "-v0").finish() == 0
    refused = filled.once("reset", "--noinput", "plant.fill")
    assert refused.finish() == 2
    assert "A migration that is applied needed plant.fill" in refused.output
    assert "`manage.py once reset --force plant.fill`" in refused.output
    assert filled.once("reset", "--noinput", "--force", "plant.fill").finish() == 0
    assert filled.completions() == []


@pytest.mark.parametrize("kind", ["sqlite"])
def test_commands_of_django_that_read_migrations(filled: Project) -> None:
    plan = filled.manage("migrate", "--plan")
    assert plan.finish() == 0
    assert "Complete the routine plant.fill" in plan.output
    sql = filled.manage("sqlmigrate", "plant", "0002")
    assert sql.finish() == 0, sql.output
    assert "-- Complete the routine plant.fill" in sql.output
    assert filled.attempts() == []
    changes = filled.manage("makemigrations", "--check", "--dry-run", "plant")
    changes.finish()
    assert "RunRoutine" not in changes.output
    changes = filled.manage("makemigrations", "--check", "--dry-run", "once")
    assert changes.finish() == 0, changes.output


@pytest.mark.parametrize("kind", ["sqlite"])
def test_commands_that_write_migrations_keep_a_gate_unless_it_is_elidable(filled: Project) -> None:
    models = filled.directory / "plant" / "models.py"
    models.write_text(MODELS + "    stock = models.IntegerField(default=0)\n")
    update = filled.manage("makemigrations", "--update", "plant")
    assert update.finish() == 0, update.output
    directory = filled.directory / "plant" / "migrations"
    (updated,) = directory.glob("0002_run_fill*.py")
    assert "RunRoutine" in updated.read_text()
    updated.unlink()
    (directory / "0001_item.py").write_text(BASE)
    for gate, is_kept in (GATE, True), (GATE.replace('fill"', 'fill", elidable=True'), False):
        write(filled, "0002_slug", gate)
        squash = filled.manage("squashmigrations", "--noinput", "plant", "0002")
        assert squash.finish() == 0, squash.output
        (squashed,) = directory.glob("0001_*squashed*.py")
        assert ("RunRoutine" in squashed.read_text()) is is_kept
        squashed.unlink()


def test_predecessors_are_done_on_the_models_of_then(filled: Project) -> None:
    filled.routines(
        """
    @routine
    def first(apps):
        apps.get_model("plant", "Item").objects.filter(name="a").update(slug="first")
    """
        + FILL.replace("last_pass=True", "last_pass=True, after=[first]")
    )
    migrate = filled.manage("migrate", "-v0")
    assert migrate.finish() == 0, migrate.output
    assert slugs(filled) == ["b-1", "c-1", "d-1", "e-1", "first"]


#: What a body of old rows reads is gone from the models of the code.
OLD_ROWS = FILL.replace('filter(slug="")', 'filter(slug="").exclude(name="")')
TESTS = """
from django.test import TestCase, TransactionTestCase

from once.models import Completion
from once.testing import CompletedRoutinesMixin, at_gate, run_routine
from plant.models import Item
from plant.routines import fill


def is_done():
    return Completion.objects.filter(routine="plant.fill").exists()


class Plain(TestCase):
    def test_is_done(self):
        assert is_done() is IS_MIGRATED


class Completed(CompletedRoutinesMixin, TestCase):
    def test_is_done(self):
        assert is_done()


class Emptied(CompletedRoutinesMixin, TransactionTestCase):
    def test_is_done(self):
        assert is_done()

    test_is_done_again = test_is_done


class Then(TransactionTestCase):
    def test_old_row(self):
        if not IS_MIGRATED:
            return
        with at_gate(fill) as apps:
            old = apps.get_model("plant", "Item").objects.create(name="old")
            run_routine(fill)
            old.refresh_from_db()
            assert old.slug.startswith("old-")
        assert is_done()
        assert not Item.objects.exists()
"""


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
@pytest.mark.parametrize("is_migrated_in_tests", [True, False])
def test_test_database(filled: Project, is_migrated_in_tests: bool) -> None:
    filled.routines(OLD_ROWS)
    source = TESTS.replace("IS_MIGRATED", str(is_migrated_in_tests))
    (filled.directory / "plant" / "tests.py").write_text(source)
    filled.settings(f"default['TEST'] = {{'MIGRATE': {is_migrated_in_tests}}}\n")
    tests = filled.manage("test", "plant")
    assert tests.finish() == 0, tests.output
    assert "Ran 5 tests" in tests.output
    assert filled.attempts() == []


@pytest.mark.parametrize("kind", ["sqlite"])
def test_gate_of_a_renamed_routine_is_undone_in_emptied_tables(filled: Project) -> None:
    renamed = 'last_pass=True, renamed_from=["plant.older", "plant.oldest"]'
    filled.routines(OLD_ROWS.replace("last_pass=True", renamed))
    source = TESTS.replace("IS_MIGRATED", "True") + "\n    test_again = test_old_row\n"
    (filled.directory / "plant" / "tests.py").write_text(source)
    tests = filled.manage("test", "plant")
    assert tests.finish() == 0, tests.output
    assert "Ran 6 tests" in tests.output


@pytest.mark.parametrize("kind", ["sqlite"])
def test_routine_finds_other_apps_as_they_are_applied(project: Project) -> None:
    project.routines("""
    @routine
    def fill(apps):
        list(apps.get_model("other", "Thing").objects.all())
    """)
    app(project, "other", "0001", model("Thing", size="IntegerField()"))
    app(project, "other", "0002", "migrations.RemoveField('thing', 'size')", after="other.0001")
    app(project, "gate", "0001", after="other.0001")
    assert project.manage("migrate", "-v0").finish() == 0
    app(project, "gate", "0002", "RunRoutine('plant.fill')", after="gate.0001")
    run = project.once("run")
    assert run.finish() == 0, run.output


@pytest.mark.parametrize("kind", ["sqlite"])
def test_routine_finds_relations_as_the_same_run_has_changed_them(project: Project) -> None:
    project.routines("""
    @routine
    def fill(apps):
        list(apps.get_model("other", "Book").objects.filter(author__country__code=""))
    """)
    app(
        project,
        "other",
        "0001",
        model("Country"),
        model("Author", country="ForeignKey('other.Country', models.CASCADE)"),
        model("Book", author="ForeignKey('other.Author', models.CASCADE)"),
    )
    code = "migrations.AddField('country', 'code', models.CharField(max_length=2, default=''))"
    app(project, "other", "0002", code, after="other.0001")
    app(project, "other", "0003", "RunRoutine('plant.fill')", after="other.0002")
    migrate = project.manage("migrate", "-v0")
    assert migrate.finish() == 0, migrate.output


@pytest.mark.parametrize("kind", ["sqlite"])
def test_routine_is_blocked_before_the_tables_of_the_record(project: Project) -> None:
    project.routines("""
    @routine
    def fill(): ...
    """)
    app(project, "gate", "0001")
    assert project.manage("migrate", "-v0", "gate").finish() == 0
    app(project, "gate", "0002", "RunRoutine('plant.fill')", after="gate.0001")
    run = project.once("run")
    assert run.finish() == 3, run.output
    assert "lacks migrations of this code (once.0001_initial)" in run.output


@pytest.mark.parametrize("kind", ["sqlite"])
def test_predecessor_does_not_run_before_the_dependencies_of_its_own_gate(
    project: Project,
) -> None:
    """It would find no column to fill, and the next migration would drop what it reads."""
    project.routines("""
    @routine
    def first(apps):
        for thing in apps.get_model("other", "Thing").objects.all():
            thing.new = thing.old
            thing.save()


    @routine(after=[first])
    def second(): ...
    """)
    app(project, "other", "0001", model("Thing", old="IntegerField()"))
    assert project.manage("migrate", "-v0").finish() == 0
    project.execute("INSERT INTO other_thing (old) VALUES (7)")
    new = "migrations.AddField('thing', 'new', models.IntegerField(default=0))"
    app(project, "other", "0002", new, after="other.0001")
    drop = "migrations.RemoveField('thing', 'old')"
    app(project, "other", "0003", "RunRoutine('plant.first')", drop, after="other.0002")
    app(project, "early", "0001", "RunRoutine('plant.second')")
    migrate = project.manage("migrate", "-v0")
    assert migrate.finish() == 1
    assert "Its own migration other.0003 comes later, after other.0002. Name" in migrate.output
    app(project, "early", "0001", "RunRoutine('plant.second')", after="other.0002")
    migrate = project.manage("migrate", "-v0")
    assert migrate.finish() == 0, migrate.output
    assert project.rows("SELECT new FROM other_thing") == [(7,)]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_routine_of_two_gates_is_pending_again_once_neither_is_applied(filled: Project) -> None:
    again = (
        GATE.replace("0001_item", "0002_slug").partition("        migrations.Alter")[0] + "    ]\n"
    )
    write(filled, "0003_again", again)
    assert filled.manage("migrate", "-v0").finish() == 0
    assert filled.manage("migrate", "-v0", "plant", "0002").finish() == 0
    assert filled.completions() == ["plant.fill"]
    assert filled.manage("migrate", "-v0", "plant", "0001").finish() == 0
    assert filled.completions() == []


@pytest.mark.parametrize("kind", ["pgbouncer-2"])
@pytest.mark.parametrize(
    ("options", "patience"), [(["--timeout=3"], "60"), ([], "3")], ids=["deadline", "patience"]
)
def test_pool_that_is_too_small_is_named_within_the_deadline(
    filled: Project, pools: dict[int, PgBouncer], options: list[str], patience: str
) -> None:
    began = time.monotonic()
    migrate = filled.once("run", "--migrate", *options, ONCE_STARTUP_TIMEOUT=patience)
    assert migrate.finish() == 4, migrate.output
    assert time.monotonic() - began < 3 + 3 * GRACE
    assert "A run needs two connections at once, or three where a migration waits" in migrate.output
    assert "raise the size of the pool that lends them (default_pool_size of PgBouncer)" in (
        migrate.output
    )
    assert "Traceback" not in migrate.output
    assert slugs(filled) == [""] * 5
    assert filled.completions() == []
    url = pools[3].url(urlsplit(filled.admin_url).path.removeprefix("/"))
    again = filled.once("run", "--migrate", DATABASE_URL=url)
    assert again.finish() == 0, again.output
    assert len(slugs(filled)) == 5


@pytest.mark.parametrize(("kind", "code"), [("pgbouncer-2", 1), ("pgbouncer-3", 0)])
def test_doctor_counts_the_connections_of_a_gate_that_is_ahead(filled: Project, code: int) -> None:
    doctor = filled.once("doctor", ONCE_LIVENESS_TIMEOUT="1")
    assert doctor.finish() == code, doctor.output
    said = " ".join(doctor.output.split())
    if code:
        assert "default fault gates 2 locks and the work need a connection each at the" in said
        assert "Have the pooler lend at least 3 to this database and user" in said
    else:
        assert "default ok gates A migration can wait for its routine: plant.fill." in said
        assert filled.once("run", "--migrate").finish() == 0
        doctor = filled.once("doctor", ONCE_LIVENESS_TIMEOUT="1")
        assert doctor.finish() == 0
        assert "gates" not in doctor.output


@pytest.mark.parametrize("kind", ["sqlite"])
def test_migration_is_not_undone_beside_an_attempt_whose_end_is_unknown(filled: Project) -> None:
    write(filled, "0002_slug", GATE.partition("        migrations.Alter")[0] + "    ]\n")
    assert filled.manage("migrate", "-v0", "--fake", "plant").finish() == 0
    (filled.directory / "handshake" / "fill.go").unlink()
    name = "    name = models.CharField(max_length=20)\n"
    (filled.directory / "plant" / "models.py").write_text(MODELS + name)
    dead = filled.once("run")
    filled.wait_for("fill")
    dead.kill()
    filled.release("fill")
    back = filled.manage("migrate", "-v0", "plant", "0001")
    assert back.finish() == 1
    assert "`manage.py once run plant.fill` takes over; then undo" in back.output, back.output
    assert filled.once("run", "plant.fill").finish() == 0
    back = filled.manage("migrate", "-v0", "plant", "0001")
    assert back.finish() == 0, back.output


# The other database has its own tables, which are migrated by a call of their own.
@pytest.mark.parametrize("kind", ["sqlite"])
def test_predecessor_in_another_database_waits_for_its_migrations(filled: Project) -> None:
    filled.settings("DATABASES['other'] = {**default, 'NAME': f'{default[\"NAME\"]}.other'}")
    filled.routines(
        """
    @routine(using="other")
    def first(run, apps):
        assert not apps.get_model("plant", "Item").objects.using(run.using).exists()
        assert not hasattr(apps.get_model("plant", "Item"), "name")
    """
        + FILL.replace("last_pass=True", "last_pass=True, after=[first]")
    )
    early = filled.manage("migrate", "-v0")
    assert early.finish() == 1
    assert "or `manage.py migrate --database other` first" in early.output, early.output
    for options in ["--database", "other"], []:
        migrate = filled.manage("migrate", "-v0", *options)
        assert migrate.finish() == 0, migrate.output
    assert slugs(filled) == SLUGS


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
@pytest.mark.parametrize("command", MIGRATE, ids=" ".join)
def test_database_that_begins_squashed_needs_no_routine(
    project: Project, command: list[str]
) -> None:
    project.routines(OLD_ROWS)
    (project.directory / "plant" / "models.py").write_text(MODELS)
    write(project, "0001_item", BASE)
    write(project, "0002_slug", GATE.replace('fill"', 'fill", elidable=True'))
    assert project.manage("squashmigrations", "--noinput", "plant", "0002").finish() == 0
    migrate = project.manage(*command)
    assert migrate.finish() == 0, migrate.output
    assert project.completions() == ["plant.fill"]
    assert project.once("run").finish() == 0
