"""Statements that need a table of the record for themselves, beside routines that run."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.processes.http import Server
from tests.project import Process, Project
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(databases=[])

#: One routine of each kind. The batched one is between two batches for a moment.
KINDS = """
    @routine
    def atomic():
        effect("atomic")
        hold("atomic")


    @routine(over=lambda: range(1, 4), batch_size=1)
    def batched(numbers):
        effect(f"batched{numbers[0]}")
        hold("batched")


    @routine(atomic=False)
    def external():
        hold("external")
        effect("external")
"""
EFFECTS = {
    "atomic": ["atomic"],
    "batched": ["batched1", "batched2", "batched3"],
    "external": ["external"],
}
ALTER = "ALTER TABLE once_attempt ADD COLUMN later varchar(20) NULL"
#: Migrations of a later release: those of this one, and one more. Because it keeps what it locks,
#: it begins with the table that a work transaction locks first.
LATER = "import once.migrations\n\n__path__ += once.migrations.__path__\n"
LATEST = """
from django.db import migrations, models

NULLABLE = models.CharField(max_length=20, null=True)
WITH_DEFAULT = models.PositiveIntegerField(db_default=7)


class Migration(migrations.Migration):
    dependencies = [("once", "0001_initial")]
    operations = [
        *(migrations.AddField(name, "later", NULLABLE) for name in ("attempt", "anchor")),
        migrations.AddField("completion", "later", WITH_DEFAULT),
        *(
            migrations.AddIndex(name, models.Index(fields=["later"], name=f"later_{name}"))
            for name in ("attempt", "completion")
        ),
        migrations.AddConstraint(
            "attempt",
            models.CheckConstraint(condition=models.Q(processed__gte=0), name="later_processed"),
        ),
        migrations.AddConstraint(
            "completion",
            models.UniqueConstraint(fields=["routine", "version", "scope_key"], name="later"),
        ),
    ]
"""
#: Sessions that hold or wait for more than the lock of a routine, of those that hold that.
RELATIONS_OF_LOCKS = """
    SELECT DISTINCT relation::regclass::text FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE application_name LIKE 'once %' AND datname = current_database()
      AND locktype = 'relation'
"""
BLOCKED = {
    "postgresql": """
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
          AND (query LIKE 'ALTER%' OR query LIKE 'VACUUM%' OR query LIKE 'TRUNCATE%')
    """,
    "mysql": """
        SELECT ID FROM information_schema.PROCESSLIST
        WHERE DB = DATABASE() AND STATE LIKE 'Waiting for table metadata lock'
          AND INFO LIKE 'ALTER%'
    """,
}


def begin(project: Project, name: str) -> Process:
    """A process that is inside the body of a routine."""
    project.routines(KINDS)
    holder = project.once("run", f"plant.{name}")
    project.wait_for(name)
    return holder


def wait_until_blocked(project: Project) -> None:
    """Wait until a statement waits for a table."""
    if not project.is_sqlite:  # whose sessions say nothing
        sql = BLOCKED["mysql" if project.is_mysql else "postgresql"]
        wait_until(lambda: project.rows(sql), what="a statement that waits for the table")


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize("name", EFFECTS)
def test_session_of_the_lock_holds_no_table(project: Project, name: str) -> None:
    holder = begin(project, name)
    standby = project.once("run", f"plant.{name}")
    standby.wait_for("Waiting")
    assert project.rows(RELATIONS_OF_LOCKS) == []
    project.release(name)
    assert [holder.finish(), standby.finish()] == [0, 0], holder.output


@pytest.mark.parametrize("name", EFFECTS)
def test_later_release_migrates_the_record_beside_a_routine(project: Project, name: str) -> None:
    holder = begin(project, name)
    waiter = project.once("run", f"plant.{name}")
    waiter.wait_for("Waiting")
    later = project.directory / "plant" / "later"
    later.mkdir()
    (later / "__init__.py").write_text(LATER)
    (later / "0002_later.py").write_text(LATEST)
    project.settings(
        'MIGRATION_MODULES = {"once": "plant.later"}\n'
        + 'options["timeout"] = 60\n' * project.is_sqlite
    )
    migrating = project.manage("migrate", "once")
    migrating.wait_for("Applying once.0002_later")
    if name == "external":
        assert migrating.finish() == 0, migrating.output  # the body holds nothing of it
    else:
        wait_until_blocked(project)
    project.release(name)
    for process in (holder, waiter, migrating):
        assert process.finish() == 0, process.output
    assert project.effects() == EFFECTS[name]
    assert project.attempts() == [(f"plant.{name}", 1, "succeeded")]
    assert project.rows("SELECT later FROM once_completion WHERE routine LIKE 'plant.%'") == [(7,)]
    for other in EFFECTS:
        project.release(other)
    project.settings("")  # the release before, which knows nothing of it
    again = project.once("run", "--migrate")
    assert again.finish() == 0, again.output
    assert project.once("status", "--check").finish() == 0
    assert project.completions() == [f"plant.{each}" for each in EFFECTS]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_waiter_behind_a_table_that_is_to_be_altered_waits_on(project: Project) -> None:
    """It does not hang, nor take the database for one out of reach, and says what is in the way."""
    holder = begin(project, "atomic")
    waiters = [project.once("run", "plant.atomic")]
    waiters[0].wait_for("Waiting")
    with ThreadPoolExecutor() as threads:
        altering = threads.submit(project.execute, ALTER)
        wait_until_blocked(project)
        waiters.append(project.once("run", "plant.atomic"))
        told = "does not say which session locks the table"
        if not project.is_mysql:
            [(taker,)] = project.rows(BLOCKED["postgresql"])
            [(blocker,)] = project.rows(f"SELECT unnest(pg_blocking_pids({taker}))")
            told = f"once_attempt is to be locked by a session (pid {taker}, role "
        for waiter in waiters:
            waiter.wait_for(told)
            assert project.is_mysql or f"which waits for pid {blocker}" in waiter.output
            assert "cannot be used" not in waiter.output
        project.release("atomic")
        altering.result(60)
    for process in (holder, *waiters):
        assert process.finish() == 0, process.output


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
@pytest.mark.parametrize("statement", ["VACUUM FULL once_attempt", "TRUNCATE once_completion"])
@pytest.mark.parametrize("name", ["batched", "external"])
def test_table_is_rewritten_beside_a_routine(project: Project, name: str, statement: str) -> None:
    holder = begin(project, name)
    with ThreadPoolExecutor() as threads:
        rewriting = threads.submit(project.execute, statement)
        if name == "external" or "completion" in statement:
            rewriting.result(60)
        else:
            wait_until_blocked(project)
        project.release(name)
        rewriting.result(60)
    assert holder.finish() == 0, holder.output
    assert project.effects() == EFFECTS[name]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_whole_database_is_rewritten_beside_an_external_routine(project: Project) -> None:
    """Catalogs included, in which the key of the lock is looked up."""
    holder = begin(project, "external")
    project.execute("VACUUM FULL")
    project.release("external")
    assert holder.finish() == 0, holder.output


@pytest.mark.parametrize("kind", ["postgresql"])
def test_readiness_says_no_behind_a_table_that_is_to_be_altered(project: Project) -> None:
    """It answers in time, and says yes once both have ended."""
    holder = begin(project, "atomic")
    with ThreadPoolExecutor() as threads:
        altering = threads.submit(project.execute, ALTER)
        wait_until_blocked(project)
        server = Server(project, "gunicorn", ONCE_STARTUP="off")
        try:
            server.wait_for(503)
            project.release("atomic")
            altering.result(60)
            assert holder.finish() == 0, holder.output
            for name in ("batched", "external"):
                project.release(name)
            assert project.once("run").finish() == 0
            server.wait_for(200)
        finally:
            server.end()
