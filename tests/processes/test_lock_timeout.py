"""Schema statements of ``--migrate`` that wait for a lock which another session has."""

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.processes.migrations import BASE, FILL, GATE, MODELS, write
from tests.project import LIVENESS, Process, Project
from tests.waiting import GRACE, wait_until

#: Seconds that a statement waits here; the least that MariaDB has.
LIMIT = 1

KINDS = ["postgresql", "pgbouncer", "mariadb"]
READ = "SELECT count(*) FROM plant_item"
WRITE = "INSERT INTO plant_item (name, slug) VALUES ('never', 'seen')"

#: It has an effect before the statement that waits, and changes what Django knows of the model.
ALTER = """
from django.db import migrations, models


def fill(apps, schema_editor):
    apps.get_model("shop", "Effect").objects.create(name="migration")


class Migration(migrations.Migration):
    dependencies = [("plant", "0001_item"), ("shop", "0001_initial")]
    operations = [
        migrations.RunPython(fill),
        migrations.RenameField("item", "name", "title"),
        migrations.AddField("item", "size", models.IntegerField(default=0)),
    ]
"""
#: Its second statement waits, and the first one cannot be undone.
PIECES = """
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("plant", "0001_item")]
    operations = [
        migrations.CreateModel("Other", [("id", models.AutoField(primary_key=True))]),
        migrations.AddField("item", "size", models.IntegerField(default=0)),
    ]
"""
INDEX = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("plant", "0001_item")]
    operations = [
        AddIndexConcurrently("item", models.Index(fields=["name"], name="item_name")),
    ]
"""
OWN = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("plant", "0001_item")]
    operations = [
        migrations.RunSQL("SET LOCAL lock_timeout = '1min' -- enough"),
        migrations.AddField("item", "size", models.IntegerField(default=0)),
    ]
"""


@pytest.fixture
def is_migrated() -> bool:
    return False


@pytest.fixture
def items(project: Project) -> Project:
    """A project whose database has a table with a row."""
    project.environment["ONCE_MIGRATE_LOCK_TIMEOUT"] = str(LIMIT)
    write(project, "0001_item", BASE)
    migrate = project.once("run", "--migrate")
    assert migrate.finish() == 0, migrate.output
    project.execute("INSERT INTO plant_item (name, slug) VALUES ('a', '')")
    return project


def connect(project: Project) -> Any:
    """A session that commits nothing by itself."""
    if not project.is_mysql:
        return psycopg.connect(project.admin_url, application_name="report")
    import MySQLdb

    parts = urlsplit(project.admin_url)
    return MySQLdb.connect(
        host=parts.hostname or "",
        port=parts.port or 3306,
        user=parts.username or "",
        database=parts.path.strip("/"),
    )


@contextmanager
def reading(project: Project, sql: str = READ) -> Iterator[str]:
    """A transaction that has used the table; yields how it is named as one in the way."""
    with closing(connect(project)) as session:
        session.cursor().execute(sql)
        if project.is_mysql:
            yield "waits for a lock"
        else:
            yield f"waits for a lock: that pid {session.info.backend_pid} has (role "


@contextmanager
def application(project: Project) -> Iterator[list[float]]:
    """Queries of the table, one after the other; yields the seconds that each took."""
    took: list[float] = []
    is_over = Event()

    def query() -> None:
        with closing(connect(project)) as session:
            while not is_over.is_set():
                began = time.monotonic()
                session.cursor().execute(READ)
                session.rollback()
                took.append(time.monotonic() - began)
                is_over.wait(0.05)

    thread = Thread(target=query)
    thread.start()
    try:
        yield took
    finally:
        is_over.set()
        thread.join()


def outlasts(project: Project, statement: str) -> None:
    """Wait until a statement has waited for longer than the limit."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        f"AND query LIKE '%{statement}%' AND wait_event_type = 'Lock' "
        f"AND clock_timestamp() - query_start > interval '{2 * LIMIT} s'"
    )
    if project.is_mysql:
        sql = (
            "SELECT count(*) FROM information_schema.processlist "
            f"WHERE info LIKE '{statement}%' AND state LIKE '%metadata lock' AND time > {2 * LIMIT}"
        )
    wait_until(lambda: project.rows(sql) == [(1,)], what=f"{statement} to outlast the limit")


def applied(project: Project) -> list[str]:
    rows = project.rows("SELECT name FROM django_migrations WHERE app = 'plant' ORDER BY id")
    return [name for (name,) in rows]


def succeed(process: Process) -> None:
    assert process.finish() == 0, process.output


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [["once", "run", "--migrate"], ["migrate"]], ids=" ".join)
def test_application_goes_on_beside_a_statement_that_waits(
    items: Project, command: list[str]
) -> None:
    write(items, "0002_size", ALTER)
    with application(items) as took:
        with reading(items) as blocker:
            migrate = items.manage(*command, ONCE_LOCK_MIGRATE="true")
            migrate.wait_for(blocker)
            wait_until(lambda: sum(seconds > LIMIT / 2 for seconds in took) >= 2)
        succeed(migrate)
    assert max(took) < LIMIT + GRACE
    assert applied(items) == ["0001_item", "0002_size"]
    assert items.effects() == ["migration"]
    assert items.rows("SELECT size FROM plant_item") == [(0,)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("option", "code"), [("--timeout=3", 4), ("--no-wait", 3)])
def test_limits_of_the_command_hold(items: Project, option: str, code: int) -> None:
    operations = "migrations.RunPython(fill),\n        "
    # MariaDB cannot undo what it did before the statement.
    write(items, "0002_size", ALTER.replace(operations, "") if items.is_mysql else ALTER)
    with reading(items) as blocker:
        migrate = items.once("run", "--migrate", option)
        assert migrate.finish() == code, migrate.output
        assert blocker in migrate.output
        if not items.is_mysql:
            assert "application 'report', idle in transaction, in a transaction for" in (
                migrate.output
            )
            assert "unless it ends soon, SELECT pg_terminate_backend(" in migrate.output
        assert "Traceback" not in migrate.output
        assert applied(items) == ["0001_item"]
        assert items.effects() == []
    succeed(items.once("run", "--migrate"))
    assert items.effects() == ([] if items.is_mysql else ["migration"])


@pytest.mark.parametrize("kind", KINDS)
def test_migration_that_cannot_be_undone_goes_on_where_it_stands(items: Project) -> None:
    write(items, "0002_size", PIECES)
    with reading(items) as blocker:
        migrate = items.once("run", "--migrate", "--timeout=1")
        migrate.wait_for(blocker)
        migrate.wait_for("A part of it is applied and cannot be undone, so that it goes on")
        assert items.rows("SELECT id FROM plant_other") == []
        assert applied(items) == ["0001_item"]
    succeed(migrate)
    assert applied(items) == ["0001_item", "0002_size"]
    assert items.rows("SELECT size FROM plant_item") == [(0,)]


@pytest.mark.parametrize("kind", KINDS)
def test_effect_of_code_that_cannot_be_undone_is_there_once(items: Project) -> None:
    head = "class Migration(migrations.Migration):\n"
    write(items, "0002_size", ALTER.replace(head, f"{head}    atomic = False\n"))
    with reading(items):
        migrate = items.once("run", "--migrate", "--timeout=1")
        migrate.wait_for("A part of it is applied and cannot be undone, so that it goes on")
    succeed(migrate)
    assert items.effects() == ["migration"]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
def test_index_that_is_built_beside_writers_waits_without_a_limit(items: Project) -> None:
    write(items, "0002_index", INDEX)
    with reading(items, WRITE):
        migrate = items.once("run", "--migrate")
        outlasts(items, "CREATE INDEX CONCURRENTLY")
    succeed(migrate)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'item_name'::regclass"
    assert items.rows(valid) == [(True,)]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
def test_limit_that_a_migration_sets_stays(items: Project) -> None:
    write(items, "0002_size", OWN)
    with reading(items):
        migrate = items.once("run", "--migrate")
        outlasts(items, "ALTER TABLE")
    succeed(migrate)
    assert "waits for a lock" not in migrate.output


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_no_limit(items: Project) -> None:
    write(items, "0002_size", ALTER)
    with reading(items):
        migrate = items.once("run", "--migrate", ONCE_MIGRATE_LOCK_TIMEOUT="0")
        outlasts(items, "ALTER TABLE")
    succeed(migrate)
    assert "waits for a lock" not in migrate.output


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
@pytest.mark.parametrize("sql", [READ, WRITE], ids=["statement", "last pass"])
def test_routine_of_a_gate_is_run_once(items: Project, sql: str) -> None:
    items.routines(FILL)
    items.release("fill")
    (items.directory / "plant" / "models.py").write_text(MODELS)
    write(items, "0002_slug", GATE)
    with reading(items, sql) as blocker:
        migrate = items.once("run", "--migrate")
        migrate.wait_for(blocker)
    succeed(migrate)
    assert items.attempts() == [("plant.fill", 1, "succeeded")]
    assert items.rows("SELECT slug FROM plant_item") == [("a-1",)]


@pytest.mark.parametrize("kind", KINDS)
def test_process_that_freezes_before_it_tries_again_applies_nothing_twice(items: Project) -> None:
    write(items, "0002_size", ALTER)
    with reading(items) as blocker:
        frozen = items.once("run", "--migrate")
        frozen.wait_for(blocker)
        frozen.send(signal.SIGSTOP)
        successor = items.once("run", "--migrate")
        successor.wait_for(blocker, timeout=LIVENESS + 2 * GRACE)
    succeed(successor)
    frozen.send(signal.SIGCONT)
    succeed(frozen)
    assert applied(items) == ["0001_item", "0002_size"]
    assert items.effects() == (["migration"] * 2 if items.is_mysql else ["migration"])
