"""What is MariaDB's own: named locks, DDL that commits, engines, privileges, a crash."""

import hashlib
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.project import Project
from tests.servers import MariaDB, free_port

pytestmark = pytest.mark.parametrize("kind", ["mariadb"])

SEED = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""


@contextmanager
def globally(server: MariaDB, **variables: int) -> Iterator[None]:
    """Have sessions that begin meanwhile have other values of these."""
    before = {name: server.query(f"SELECT @@GLOBAL.{name}")[0][0] for name in variables}
    try:
        for name, value in variables.items():
            server.query(f"SET GLOBAL {name} = {value}")
        yield
    finally:
        for name, value in before.items():
            server.query(f"SET GLOBAL {name} = {value}")


def test_ddl_in_a_body_is_an_error(project: Project) -> None:
    project.routines(
        """
        @routine
        def seed():
            effect("before")
            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE plant_made (id int)")
            effect("after")
        """
    )
    process = project.once("run")
    assert process.finish() == 1, process.output
    assert "The body ended its transaction itself" in process.output
    assert "What it committed stays and is not recorded" in process.output
    assert project.effects() == ["before"]  # CREATE TABLE committed it
    assert project.completions() == []
    assert project.attempts() == [("plant.seed", 1, "failed")]


@pytest.mark.parametrize("isolation", ["3", "4"], ids=["REPEATABLE READ", "SERIALIZABLE"])
def test_other_isolation_level_of_the_project(project: Project, isolation: str) -> None:
    project.routines(SEED)
    project.environment["TEST_ISOLATION"] = isolation
    killed = project.once("run")
    project.wait_for("body")
    waiters = [project.once("run") for _ in range(3)]
    for waiter in waiters:
        waiter.wait_for("Waiting")
    killed.kill()
    project.release("body")
    for waiter in waiters:
        assert waiter.finish() == 0, waiter.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


def test_idle_timeouts_of_the_server_do_not_end_a_body_that_thinks(
    project: Project, mariadb: MariaDB
) -> None:
    project.routines(
        """
        @routine
        def seed():
            effect("seed")
            reach("body")
            time.sleep(2.5)  # longer than the timeouts, which is what is tested
        """
    )
    with globally(mariadb, wait_timeout=1, idle_transaction_timeout=1, lock_wait_timeout=1):
        holder = project.once("run")
        project.wait_for("body")
        waiter = project.once("run")
        assert [holder.finish(), waiter.finish()] == [0, 0], holder.output + waiter.output
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


def test_server_crash_in_a_body(project: Project, mariadb: MariaDB) -> None:
    project.routines(
        """
        @routine
        def seed(run):
            effect("seed")
            hold(f"body{run.attempt}")


        @routine(atomic=False, after=[seed])
        def announce(run):
            hold(f"outside{run.attempt}")
        """
    )
    project.release("body2")
    runner = project.once("run")
    for body in ("body1", "outside1"):
        project.wait_for(body)
        mariadb.kill()
        project.release(body)
        mariadb.start()
    assert runner.finish() == 0, runner.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [
        ("plant.announce", 1, "succeeded"),
        ("plant.seed", 1, "interrupted"),
        ("plant.seed", 2, "succeeded"),
    ]


def test_body_is_told_in_time_that_the_server_fell_silent(
    project: Project, mariadb: MariaDB
) -> None:
    project.routines(
        """
        from once.exceptions import LockLost


        @routine(atomic=False)
        def announce(run):
            reach("body")
            try:
                while True:
                    run.check()
                    time.sleep(0.01)
            except LockLost as error:
                print("told:", error, flush=True)
        """
    )
    holder = project.once("run")
    project.wait_for("body")
    mariadb.send(signal.SIGSTOP)
    try:
        holder.wait_for("told: The lock of plant.announce")
    finally:
        mariadb.send(signal.SIGCONT)
    assert holder.finish() == 0, holder.output
    assert project.attempts() == [("plant.announce", 1, "succeeded")]


def test_missing_right_to_end_a_zombie_is_named(project: Project, mariadb: MariaDB) -> None:
    [(name,)] = project.rows("SELECT DATABASE()")
    for user in ("zombie", "standby"):
        mariadb.query(f"CREATE OR REPLACE USER {user}@localhost")
        mariadb.query(f"GRANT ALL ON {name}.* TO {user}@localhost")
    project.routines(SEED)
    zombie = project.once("run", DATABASE_URL=project.url.replace("root@", "zombie@"))
    project.wait_for("body")
    zombie.send(signal.SIGSTOP)
    standbys_url = project.url.replace("root@", "standby@")
    standby = project.once("run", DATABASE_URL=standbys_url)
    standby.wait_for("GRANT CONNECTION ADMIN ON *.* TO standby")
    standby.kill()
    mariadb.query("GRANT CONNECTION ADMIN ON *.* TO standby@localhost")
    standby = project.once("run", DATABASE_URL=standbys_url)
    project.wait_for("body", processes=2)
    project.release("body")
    assert standby.finish() == 0, standby.output
    zombie.send(signal.SIGCONT)
    assert zombie.finish() == 0, zombie.output
    assert project.effects() == ["seed"]


def test_lock_that_a_foreign_session_holds_is_named_with_its_remedy(
    project: Project, mariadb: MariaDB
) -> None:
    """Any user that may connect may take any named lock."""
    import MySQLdb

    project.routines(SEED)
    orphan = project.once("run")  # which leaves its attempt running
    project.wait_for("body")
    orphan.kill()
    [(name,)] = project.rows("SELECT DATABASE()")
    mariadb.query("CREATE OR REPLACE USER stranger@localhost")
    mariadb.query("CREATE OR REPLACE USER reader@localhost")
    mariadb.query(f"GRANT ALL ON {name}.* TO reader@localhost")
    readers_url = project.url.replace("root@", "reader@")
    key = f"{name}:{hashlib.sha256(b'plant.seed').hexdigest()}"
    lock = f"once:{hashlib.sha256(key.encode()).hexdigest()[:48]}"
    with closing(MySQLdb.connect(host="127.0.0.1", port=mariadb.port, user="stranger")) as foreign:
        foreign.query(f"DO GET_LOCK('{lock}', 0)")
        session = foreign.thread_id()
        known = f"none of once (id {session}, user stranger, host localhost)"
        for command, url, told in (
            (["run", "--no-wait"], project.url, known),
            (["status"], project.url, known),
            (["doctor", "-v0"], project.url, known),
            (["status"], readers_url, f"none of once (id {session}, of another user)"),
        ):
            process = project.once(*command, DATABASE_URL=url, COLUMNS="500")
            assert process.finish() == (3 if "run" in command else 0), process.output
            remedy = f"unless it ends soon, KILL {session}"
            assert f"a session that is {told}: {remedy}" in process.output
        waiting = project.once("run")
        waiting.wait_for(f"KILL {session}")
        mariadb.query(f"KILL {session}")
        project.wait_for("body")
        # The next holder is of once.
        status = project.once("run", "--no-wait", "plant.seed")
        assert status.finish() == 3, status.output
        assert project.named(waiting) in status.output
        project.release("body")
        assert waiting.finish() == 0, waiting.output


def test_table_that_cannot_roll_back_is_refused(project: Project) -> None:
    project.routines(SEED)
    project.release("body")
    project.execute("ALTER TABLE once_completion ENGINE = Aria")
    refused = project.once("run")
    assert refused.finish() == 1, refused.output
    assert "ALTER TABLE once_completion ENGINE = InnoDB" in refused.output
    assert project.effects() == []
    doctor = project.once("doctor")
    assert doctor.finish() == 1, doctor.output
    assert "ALTER TABLE once_completion ENGINE = InnoDB" in doctor.output
    project.execute("ALTER TABLE once_completion ENGINE = InnoDB")
    assert project.once("run").finish() == 0
    assert project.effects() == ["seed"]


def test_doctor_finds_what_the_protocol_needs(project: Project) -> None:
    project.routines(SEED)
    doctor = project.once("doctor", "--json")
    assert doctor.finish() == 0, doctor.output
    assert '"level": "fault"' not in doctor.output
    for proof in ("exclusion", "eviction", "fencing", "privileges", "clock"):
        assert f'"id": "{proof}"' in doctor.output


def test_databases_of_one_server_do_not_exclude_each_other(
    project: Project, mariadb: MariaDB
) -> None:
    project.routines(SEED)
    [(name,)] = project.rows("SELECT DATABASE()")
    mariadb.copy_database("once_migrated", f"{name}_beside")
    try:
        processes = [
            project.once("run", DATABASE_URL=mariadb.url(database))
            for database in (name, f"{name}_beside")
        ]
        project.wait_for("body", processes=2)
        project.release("body")
        assert [process.finish() for process in processes] == [0, 0], processes[0].output
    finally:
        mariadb.query(f"DROP DATABASE {name}_beside")


def test_session_is_left_as_it_was_found(project: Project) -> None:
    project.routines(
        """
        from django.core.management import call_command

        STATE = "SELECT @@wait_timeout, @@idle_transaction_timeout, @@innodb_lock_wait_timeout, "
        LOCKS = (
            "(SELECT count(*) FROM information_schema.METADATA_LOCK_INFO "
            "WHERE THREAD_ID = CONNECTION_ID() AND TABLE_SCHEMA LIKE 'once:%')"
        )


        def state():
            with connection.cursor() as cursor:
                cursor.execute(STATE + LOCKS)
                return cursor.fetchone()


        @routine
        def seed():
            effect("seed")
            assert state()[0] == 2147483 and state()[3] == 1, state()
            transaction.on_commit(lambda: call_command("once", "run", "plant.later"))


        @routine
        def later():
            effect("later")


        @routine
        def fail():
            raise ValueError("no such brand")
        """
    )
    ask = """
import django; django.setup()
from django.core.management import CommandError, call_command
from plant.routines import connection, state
before = state()
try:
    call_command("once", "run", "--keep-going")
except CommandError:
    pass
print("the same:", state() == before, before[3])
connection.close()
"""
    process = project.start(sys.executable, "-c", ask)
    assert process.finish() == 0, process.output
    assert "the same: True 0" in process.output
    assert project.effects() == ["later", "seed"]


@pytest.mark.parametrize("arguments", [["run"], ["wait"]], ids=" ".join)
def test_server_that_hangs_does_not_outlast_the_deadline(
    project: Project, mariadb: MariaDB, arguments: list[str]
) -> None:
    project.routines(SEED)
    # Each has asked something before, so that its connection is open.
    steps = {
        "run": "once.databases.unapplied:loaded=asked",
        "wait": "once.record.queries:attempted=asked",
    }
    process = project.once(*arguments, "--timeout=2", TEST_HOLD=steps[arguments[0]])
    project.wait_for("asked")
    mariadb.send(signal.SIGSTOP)
    try:
        project.release("asked")
        assert process.finish() == 4, process.output
        assert "No answer for" in process.output
    finally:
        mariadb.send(signal.SIGCONT)


def test_server_that_is_down_is_waited_for(project: Project) -> None:
    project.routines(SEED)
    project.release("body")
    nowhere = project.url.replace(f":{urlsplit(project.url).port}/", f":{free_port()}/")
    for arguments in (["run"], ["run", "--migrate"], ["wait", "--timeout=1"]):
        process = project.once(*arguments, DATABASE_URL=nowhere, ONCE_STARTUP_TIMEOUT="1")
        assert process.finish() == 4, process.output
        assert "database 'default' cannot be used" in process.output
        assert "Traceback" not in process.output


def test_names_and_releases_differ_by_case_and_accents(project: Project) -> None:
    project.routines(
        """
        for name in ("seed", "Seed", "séed"):
            @routine(name=f"plant.{name}", scope="release")
            def seed(name=name):
                effect(name)
        """
    )
    for release in ("v1a", "v1A"):
        process = project.once("run", "--timeout=10", ONCE_RELEASE=release)
        assert process.finish() == 0, process.output
    assert sorted(project.effects()) == sorted(["seed", "Seed", "séed"] * 2)
    again = project.once("run", ONCE_RELEASE="v1a")
    assert again.finish() == 0, again.output
    assert len(project.attempts()) == 6


def test_attempt_that_is_needed_cannot_be_deleted_by_hand(project: Project) -> None:
    import MySQLdb

    project.routines("""
        @routine(atomic=False, retry=False)
        def send():
            effect("sent")
            raise ValueError("no mail server")
    """)
    assert project.once("run").finish() == 1
    with pytest.raises(MySQLdb.IntegrityError, match="foreign key constraint"):
        project.execute("DELETE FROM once_attempt")
    pruned = project.once("prune", "--older-than", "0")
    assert pruned.finish() == 0, pruned.output
    assert "default: 0 old attempts deleted." in pruned.output
    assert project.once("run").finish() == 5
    reset = project.once("reset", "plant.send", "--no-input")
    assert reset.finish() == 0, reset.output
    pruned = project.once("prune", "--older-than", "0")
    assert pruned.finish() == 0, pruned.output
    assert "default: 1 old attempts deleted." in pruned.output
    assert project.attempts() == [("plant.send", 2, "succeeded")]
    assert project.effects() == ["sent"]
