"""Faults of processes on SQLite, where the operating system frees the lock with its process."""

import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from once.databases.sqlite import SQLiteLock
from tests.project import Project
from tests.shop.calls import calls

pytestmark = pytest.mark.parametrize("kind", ["sqlite"])

SEED = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""


def test_frozen_holder_is_waited_for_and_then_completes(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    holder.send(signal.SIGSTOP)
    impatient = project.once("run", "--timeout", "3")  # longer than the liveness timeout
    assert impatient.finish() == 4
    assert f"pid {holder.pid}" in impatient.output
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    holder.send(signal.SIGCONT)
    project.release("body")
    assert [holder.finish(), waiter.finish()] == [0, 0]
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


def test_readers_are_not_locked_out_of_a_long_routine(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    assert project.status()["plant.seed"]["state"] == "running"
    project.release("body")
    assert holder.finish() == 0


def test_frozen_holder_outside_of_a_transaction_lets_others_write(project: Project) -> None:
    project.routines(
        """
        from tests.shop.calls import note


        @routine(atomic=False, retry=False)
        def announce(run):
            note("announce", run)
            hold("body")
        """
    )
    holder = project.once("run")
    project.wait_for("body")
    holder.send(signal.SIGSTOP)
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    project.execute("INSERT INTO shop_effect (name, pid) VALUES ('by another', 0)")
    assert project.status()["plant.announce"]["state"] == "running"
    project.release("body")
    holder.send(signal.SIGCONT)
    assert [holder.finish(), waiter.finish()] == [0, 0]
    assert project.effects() == ["by another"]
    assert len(calls(project.directory, "announce")) == 1
    assert project.attempts() == [("plant.announce", 1, "succeeded")]


def test_database_in_a_directory_that_is_missing_is_refused(project: Project) -> None:
    project.routines(SEED)
    missing = project.directory / "missing"
    process = project.once(
        "run",
        "--migrate",
        DATABASE_URL=f"sqlite:///{missing}/db.sqlite3",
        ONCE_STARTUP_TIMEOUT="3",  # it tries again, and may have made the directory before
    )
    assert process.finish() == 4, process.output
    assert "unable to open database file" in process.output
    assert not missing.exists()


@pytest.mark.parametrize(
    ("mode", "of_lock"), [(0o644, 0o600), (0o664, 0o660), (0o666, 0o666)], ids=oct
)
def test_lock_file_opens_for_those_who_may_write_to_the_database(
    project: Project, mode: int, of_lock: int
) -> None:
    path = Path(urlsplit(project.url).path)
    path.chmod(mode)
    with SQLiteLock(path) as lock:
        assert lock.acquire()
        assert path.with_name(f"{path.name}.once.lock").stat().st_mode & 0o777 == of_lock


def test_lock_of_a_killed_holder_is_not_kept_by_what_its_body_forked(project: Project) -> None:
    project.routines(
        """
        @routine
        def seed(run):
            effect("seed")
            if run.attempt == 1:
                if not os.fork():
                    hold("child")
                    os._exit(0)
                hold("body")
        """
    )
    holder = project.once("run")
    project.wait_for("body")
    project.wait_for("child")
    holder.kill()
    successor = project.once("run", "--timeout", "60")
    assert successor.finish(120) == 0, successor.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]
    project.release("child")


def test_body_that_waits_for_its_own_transaction_is_told_so_at_the_first_call(
    project: Project,
) -> None:
    """The wait is SQLite's own, for as long as the connection's timeout says: no test waits 5 s."""
    project.settings('options["timeout"] = 0.1\n')
    project.routines("""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor


        @routine
        def thread():
            print("In the body of thread")
            with ThreadPoolExecutor(1) as pool:
                pool.submit(effect, "beside").result()


        @routine
        def loop():
            print("In the body of loop")
            asyncio.run(Effect.objects.acreate(name="beside"))
    """)
    command = project.once("run", "--keep-going")
    assert command.finish() == 1, command.output
    for name in ("thread", "loop"):
        assert command.output.count(f"In the body of {name}") == 1, command.output
    assert command.output.count("A thread or asyncio.run() in the body writes") >= 2
    assert project.attempts() == [("plant.loop", 1, "failed"), ("plant.thread", 1, "failed")]
    assert project.effects() == []
