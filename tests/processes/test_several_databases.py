"""Several databases: a record in each, an order across them, and routers between."""

from typing import Any

import psycopg
import pytest

from tests.processes.http import Serve
from tests.project import Project
from tests.waiting import wait_until


@pytest.fixture
def kind() -> str:
    return "postgresql"


SECOND = "DATABASES['second'] = env.db_url('TEST_SECOND')\n"
ROUTER = """
DATABASE_ROUTERS = ["plant.settings.Router"]


class Router:
    def allow_migrate(self, db, app_label, **hints):
        # Every app in one database, and the record wherever there are routines.
        if app_label in ("once", "shop"):
            return app_label == "once" or db != "default"
        return db == "default"

    def db_for_read(self, model, **hints):
        return "replica" if "replica" in DATABASES else self.db_for_write(model)

    def db_for_write(self, model, **hints):
        return "second" if model._meta.app_label == "shop" else "default"
"""
SPREAD = """
    from tests.shop.models import Counted

    @routine
    def first():
        reach("first")

    @routine(using="second", after=[first])
    def second(run):
        assert len(os.listdir(os.environ["HANDSHAKE"])) == 1
        effect("second")

    @routine(using="sqlite", after=[second])
    def third(run):
        assert Effect.objects.using("second").get().name == "second"
        Effect.objects.using(run.using).create(name="third")

    @routine(using="second", after=[third], over=Counted.objects.all, batch_size=2)
    def fourth(rows, run):
        for row in rows:
            row.counter += 1
            row.save()
"""


def in_second(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as session:
        cursor = session.execute(sql)
        return cursor.fetchall() if cursor.description else []


def test_several_databases(project: Project, serve: Serve, second_url: str) -> None:
    project.environment["TEST_SECOND"] = second_url
    project.settings(SECOND + ROUTER)
    project.routines(SPREAD)
    in_second(second_url, "INSERT INTO shop_counted (counter) SELECT 0 FROM generate_series(1, 5)")
    # Of the file that is not migrated, only this is left to do.
    limited = project.once("run", "--migrate", "--database", "sqlite")
    assert limited.finish() == 0, limited.output
    server = serve("gunicorn")
    commands = [project.once("run") for _ in range(3)]
    assert [one.finish() for one in commands] == [0] * 3, commands[0].output
    server.wait_for(200)
    assert len(project.reached("first")) == 1
    assert in_second(second_url, "SELECT name FROM shop_effect") == [("second",)]
    assert in_second(second_url, "SELECT counter FROM shop_counted") == [(1,)] * 5
    found = project.status()
    assert {
        name: (one["database"], one["state"], one["attempts"]) for name, one in found.items()
    } == {
        "plant.first": ("default", "completed", 1),
        "plant.second": ("second", "completed", 1),
        "plant.third": ("sqlite", "completed", 1),
        "plant.fourth": ("second", "completed", 1),
    }


#: A replica that is out of reach, to which a router sends every read.
REPLICA = """
DATABASES["replica"] = {
    **default, "NAME": "nowhere", "HOST": "127.0.0.1", "PORT": 1, "TEST": {"MIRROR": "default"}
}
DATABASE_ROUTERS = ["plant.settings.Reads"]


class Reads:
    def db_for_read(self, model, **hints):
        return "replica"
"""


def test_nothing_is_read_from_a_replica(project: Project, serve: Serve) -> None:
    project.settings(REPLICA)
    project.routines("""
        from tests.shop.models import Counted

        @routine
        def seed():
            effect("seed")

        @routine(atomic=False)
        def announce(run):
            effect("announce")

        @routine(over=Counted.objects.all, batch_size=2)
        def count(rows):
            for row in rows:
                row.counter += 1
                row.save()

        @routine
        def fail():
            if not os.path.exists(os.environ["HANDSHAKE"] + "/mended.go"):
                raise ValueError("not yet")
    """)
    project.execute("INSERT INTO shop_counted (counter) SELECT 0 FROM generate_series(1, 5)")
    failing = project.once("run", "--migrate")
    assert failing.finish() == 1, failing.output
    assert "ValueError: not yet" in failing.output
    found = project.status()
    assert found["plant.count"]["processed"] == 5
    assert found["plant.fail"]["state"] == "failed"
    project.release("mended")
    server = serve("gunicorn", ONCE_RETRY_DELAY="0")
    server.wait_for(200)
    for command in (
        ["once", "wait"],
        ["once", "reset", "plant.seed", "--no-input"],
        ["once", "run"],
    ):
        process = project.manage(*command)
        assert process.finish() == 0, process.output
    assert project.effects() == ["announce", "seed", "seed"]
    assert project.rows("SELECT counter FROM shop_counted") == [(1,)] * 5


MANY = """
for number in range(8):
    DATABASES[f"copy{number}"] = {**default}
"""
OF_MANY = """
    def open_another(using):
        Effect.objects.using("copy7" if using == "copy6" else "copy6").count()

    def declare(number):
        @routine(name=f"plant.of{number}", using=f"copy{number}")
        def body(run):
            Effect.objects.using(run.using).create(name=run.using)
            if number == 5:
                open_another(run.using)  # the body's own
            if number in (4, 6):
                hold(run.using)

    for number in range(8):
        declare(number)
"""
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_many_databases_on_one_server_are_gone_to_one_after_the_other(project: Project) -> None:
    project.settings(MANY)
    project.routines(OF_MANY)
    command = project.once("run")
    for alias in ("copy4", "copy6"):
        project.wait_for(alias)
        # For the work, and of the lock. Those before may be about to end.
        wait_until(lambda: project.rows(SESSIONS) == [(2,)], what="two sessions")
        project.release(alias)
    assert command.finish() == 0, command.output
    assert project.effects() == [f"copy{number}" for number in range(8)]
