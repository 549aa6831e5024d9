"""What bodies do to themselves: they break their transaction, starve the lock, outlast death."""

import pytest

from tests.project import LIVENESS, Project
from tests.waiting import GRACE, wait_until

#: Every kind and misdeed, for as long as MISDEED is set.
MISDEEDS = """
    import threading
    from django.core.management import call_command
    from django.db import close_old_connections


    def sql(statement):
        with connection.cursor() as cursor:
            cursor.execute(statement)


    def expire():
        connection.close_at = 0.0
        close_old_connections()


    def leave():
        sys.exit(3)


    def write_beside():
        thread = threading.Thread(target=lambda: (effect("thread"), connection.close()))
        thread.start()
        thread.join()
        raise ValueError("after the thread")


    MISDEEDS = {
        "asks": lambda: transaction.set_rollback(True),
        "closes": lambda: connection.close(),
        "commits": lambda: sql("COMMIT"),
        "exits": leave,
        "expires": expire,
        "nests": lambda: call_command("once", "run", "plant.alone"),
        "threads": write_beside,
    }


    def declare(name):
        @routine(name=f"plant.{name}")
        def body():
            effect(name)
            if "MISDEED" in os.environ:
                MISDEEDS[name]()


    for name in sorted(MISDEEDS):
        declare(name)


    @routine
    def alone():
        effect("alone")


    @routine(over=lambda: range(1, 4), batch_size=1)
    def batched(items):
        effect(f"batched{items[0]}")
        if "MISDEED" in os.environ and 2 in items:
            connection.close()


    @routine(atomic=False)
    def external():
        connection.close()
        effect("external")
        if "MISDEED" in os.environ:
            try:
                call_command("once", "run", "plant.external")
            finally:
                effect("unrecorded")
"""
#: What is said of each.
WORDS = {
    "asks": "asked for a rollback",
    "batched": "closed the connection that its transaction lives on",
    "closes": "closed the connection that its transaction lives on",
    "commits": "ended its transaction itself",
    "exits": "sys.exit(3)",
    "expires": "closed the connection that its transaction lives on",
    "external": "cannot start the same again and wait for it",
    "nests": "inside a transaction",
    "threads": "after the thread",
}


@pytest.mark.parametrize("kind", ["pgbouncer"])
def test_misdeeds_are_errors_of_which_nothing_is_recorded(project: Project) -> None:
    project.routines(MISDEEDS)
    process = project.once("run", "--keep-going", MISDEED="1")
    assert process.finish() == 1, process.output
    errors = {name: shown["error"] for name, shown in project.status().items()}
    for name, words in WORDS.items():
        assert words in errors[f"plant.{name}"], errors
    # What a COMMIT of its own, a thread and an external body wrote is theirs.
    own = ["alone", "batched1", "commits", "external", "thread", "unrecorded"]
    assert project.effects() == own
    assert project.completions() == ["plant.alone"]
    assert {state for name, _, state in project.attempts() if name != "plant.alone"} == {"failed"}
    mended = project.once("run")
    assert mended.finish() == 0, mended.output
    again = ["asks", "batched2", "batched3", "closes", "commits", "exits", "expires", "external"]
    assert project.effects() == sorted([*own, *again, "nests", "threads"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [("postgresql", ""), ("mariadb", "atomic=False"), ("sqlite", "over=lambda: [1], batch_size=1")],
    ids=["atomic", "external", "batched"],
)
def test_exception_that_is_no_error_ends_the_process_and_is_recorded(
    project: Project, options: str
) -> None:
    project.routines(f"""
        class Odd(BaseException):
            pass


        @routine({options})
        def seed({"items" if "over" in options else ""}):
            if "MISDEED" in os.environ:
                raise Odd("no error")
            effect("seed")
    """)
    process = project.once("run", MISDEED="1")
    assert process.finish() == 1, process.output
    assert "Odd: no error" in project.status()["plant.seed"]["error"]
    assert (project.effects(), project.completions()) == ([], [])
    again = project.once("run")
    assert again.finish() == 0, again.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "failed"), ("plant.seed", 2, "succeeded")]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_killed_during_a_long_query(project: Project) -> None:
    sleep = "SELECT SLEEP(120)" if project.is_mysql else "SELECT pg_sleep(120)"
    project.routines(f"""
        @routine
        def seed(run):
            effect("seed")
            reach(f"body{{run.attempt}}")
            if run.attempt == 1:
                with connection.cursor() as cursor:
                    cursor.execute("{sleep}")
    """)
    holder = project.once("run")
    project.wait_for("body1")
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    queries = (
        "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND INFO = "
        if project.is_mysql
        else "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND "
        "state = 'active' AND query = "
    )
    wait_until(lambda: project.rows(f"{queries}'{sleep}'"), what="the query to run")
    holder.kill()
    assert project.wait_for("body2") < LIVENESS + GRACE
    assert waiter.finish() == 0, waiter.output
    assert project.rows(f"{queries}'{sleep}'") == []  # it does not go on either
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer-40"])
def test_index_made_concurrently_while_others_wait(project: Project) -> None:
    project.routines("""
        @routine(atomic=False)
        def index():
            hold("body")
            with connection.cursor() as cursor:
                cursor.execute("CREATE INDEX CONCURRENTLY plant_made ON shop_effect (name)")
            effect("made")
    """)
    holder = project.once("run")
    project.wait_for("body")
    waiters = [project.once("run") for _ in range(5)]
    for waiter in waiters:
        waiter.wait_for("Waiting")
    project.release("body")
    assert [process.finish() for process in (holder, *waiters)] == [0] * 6, holder.output
    assert project.rows(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('plant_made')"
    ) == [(True,)]
    assert project.effects() == ["made"]
    assert project.attempts() == [("plant.index", 1, "succeeded")]


#: With the GIL, three times the liveness timeout of its processes.
STARVING = """
    import ctypes


    @routine
    def seed(run):
        effect("seed")
        reach(f"body{run.attempt}")
        ctypes.PyDLL(None).usleep(3_000_000)
"""
#: The first attempt has a second, the next one two, and the third four.
DOUBLED = [["lost"] * lost + ["succeeded"] for lost in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_body_that_lets_no_other_thread_run(project: Project) -> None:
    project.routines(STARVING)
    processes = [project.once("run", ONCE_LIVENESS_TIMEOUT="1") for _ in range(4)]
    codes = [process.finish() for process in processes]
    assert codes == [0] * 4, [process.output for process in processes]
    assert project.effects() == ["seed"]
    assert [state for _, _, state in project.attempts()] in DOUBLED


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_body_that_starves_the_pings_and_wakes_before_its_successor_records(
    project: Project,
) -> None:
    """The process tells of its attempt itself, and as lost, so that the timeout doubles."""
    awake = project.directory / "handshake" / "awake.go"
    project.routines(f"""
        import ctypes


        @routine
        def seed(run):
            effect("seed")
            reach(f"body{{run.attempt}}")
            library = ctypes.PyDLL(None)
            if run.attempt > 1:
                library.usleep(1_500_000)
                return
            sys.setswitchinterval(1_000)  # else another thread could run between two calls
            while library.access({str(awake).encode()!r}, 0):
                library.usleep(10_000)
            sys.setswitchinterval(0.005)
    """)
    first = project.once("run", ONCE_LIVENESS_TIMEOUT="1")
    project.wait_for("body1")
    database = "mysql:MySQL" if project.is_mysql else "postgresql:PostgreSQL"
    step = f"once.databases.{database}.terminate_backend=after:ended"
    second = project.once("run", ONCE_LIVENESS_TIMEOUT="1", TEST_HOLD=step)
    project.wait_for("ended")
    project.release("awake")
    first.wait_for("Waiting")
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "running")]
    project.release("ended")
    assert [process.finish() for process in (first, second)] == [0, 0], first.output
    assert "Attempt 1 lost its right to commit, because another process took over" in first.output
    assert project.effects() == ["seed"]
    states = [state for _, _, state in project.attempts()]
    assert (states[0], states[-1], "failed" in states) == ("lost", "succeeded", False), states
