"""Faults of a whole server: commits that are late or lost, a stop, a crash, missing rights."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.faults.support import Server
from tests.project import Process, Project
from tests.servers import PgBouncer
from tests.shop.calls import calls
from tests.waiting import wait_until

#: The sessions of locks, also while they show life; those of a pooler are idle afterwards.
LOCKS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'once %' AND state <> 'idle'"
SEED = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""

#: One of each kind, a batched one twice: it holds in its middle batch, or in its last one.
KINDS = """
    from tests.shop.calls import note


    def declare(name, **options):
        @routine(name=f"plant.{name}", **options)
        def body(run):
            note(name, run)
            effect(name)
            hold(name)


    def declare_batched(name, hold_at):
        @routine(name=f"plant.{name}", over=lambda: range(1, 6), batch_size=2)
        def body(items, run):
            note(name, run)
            for item in items:
                effect(f"{name}{item}")
            if hold_at in items and run.attempt == 1:
                hold(name)


    declare("atomic")
    declare("external", atomic=False)
    declare_batched("last", hold_at=5)
    declare_batched("middle", hold_at=3)
"""
NAMES = ["atomic", "external", "last", "middle"]
EACH_ONCE = ["atomic", "external", *(f"last{n}" for n in range(1, 6))]
EACH_ONCE += [f"middle{n}" for n in range(1, 6)]


def test_missing_right_to_end_a_zombie_is_named(own_project: Project) -> None:
    project = own_project  # roles belong to a server
    with psycopg.connect(project.admin_url, autocommit=True) as session:
        for role in ("once_zombie", "once_standby"):
            session.execute(f"DROP ROLE IF EXISTS {role}")
            session.execute(f"CREATE ROLE {role} LOGIN")
            session.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            session.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    urls = {
        role: project.url.replace("postgres:@", f"{role}:@")
        for role in ("once_zombie", "once_standby")
    }
    try:
        project.routines(SEED)
        zombie = project.once("run", DATABASE_URL=urls["once_zombie"])
        project.wait_for("body")
        zombie.send(signal.SIGSTOP)
        standby = project.once("run", DATABASE_URL=urls["once_standby"])
        standby.wait_for("GRANT pg_signal_backend TO")
        hurried = project.once("run", "--no-wait", DATABASE_URL=urls["once_standby"])
        assert hurried.finish() == 3, hurried.output  # the standby has the lock
        standby.kill()
        hurried = project.once("run", "--no-wait", DATABASE_URL=urls["once_standby"])
        assert hurried.finish() == 3, hurried.output
        assert "GRANT pg_signal_backend TO" in hurried.output
        standby = project.once("run", DATABASE_URL=urls["once_standby"])
        standby.wait_for("GRANT pg_signal_backend TO")
        with psycopg.connect(project.admin_url, autocommit=True) as session:
            session.execute("GRANT pg_signal_backend TO once_standby")
        project.wait_for("body", processes=2)
        project.release("body")
        assert standby.finish() == 0, standby.output
        assert project.effects() == ["seed"]
    finally:
        zombie.kill()
        with psycopg.connect(project.admin_url, autocommit=True) as session:
            for role in ("once_zombie", "once_standby"):
                session.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def who_called(project: Project, name: str, first: Process, second: Process) -> str:
    """Which of two processes made the calls of a body, in their order."""
    who = {first.pid: "1", second.pid: "2"}
    return "".join(who[call.pid] for call in calls(project.directory, name))


def test_commits_of_killed_processes_that_become_visible_late(
    own_project: Project, server: Server
) -> None:
    project = own_project
    project.routines(KINDS)
    killed = {name: project.once("run", f"plant.{name}") for name in NAMES}
    for name in NAMES:
        project.wait_for(name)
    server.hold_commits()
    for name in NAMES:
        project.release(name)
    wait_until(lambda: len(server.waiting_commits()) == len(NAMES))
    committing = server.waiting_commits()
    for process in killed.values():
        process.kill()
    successors = {name: project.once("run", f"plant.{name}") for name in NAMES}
    wait_until(lambda: len(server.waiting_commits()) == 2 * len(NAMES))
    assert project.completions() == []
    # Frozen, they are later still: the successors have claimed, read, and come to their fences.
    for pid in committing:
        os.kill(pid, signal.SIGSTOP)
    try:
        server.release_commits()
        fenced: set[str] = set()
        wait_until(
            lambda: see_fences(project, fenced) == {f"plant.{name}" for name in NAMES},
            what=lambda: f"a fence of each; seen: {fenced}",
        )
        assert project.completions() == []
    finally:
        for pid in committing:
            os.kill(pid, signal.SIGCONT)
    for process in successors.values():
        assert process.finish() == 0, process.output
    assert {name: who_called(project, name, killed[name], successors[name]) for name in NAMES} == {
        "atomic": "1",
        "external": "1",
        "last": "111",
        "middle": "112",
    }
    assert project.effects() == EACH_ONCE
    assert project.completions() == [f"plant.{name}" for name in NAMES]


def see_fences(project: Project, seen: set[str]) -> set[str]:
    """The routines of which somebody was seen to end the session of the first attempt."""
    # By the statement's first word as well: this one, asked a moment ago by a session that is still
    # to end, would match otherwise.
    statements = project.rows(
        "SELECT routine FROM once_attempt JOIN pg_stat_activity ON number = 1 "
        "AND query LIKE concat('BEGIN %WITH holders AS %''work ', once_attempt.id, '''%')"
    )
    seen.update(routine for (routine,) in statements)
    return seen


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "pgbouncer"])
def test_commit_that_waits_for_a_replica_is_told_as_that(
    own_project: Project, server: Server, tmp_path: Path, is_pooled: bool
) -> None:
    """No want of a connection is named, though the lock gives itself up as it does for that."""
    project = own_project
    project.routines(SEED)
    project.release("body")
    with ExitStack() as ends:
        if is_pooled:
            pooler = PgBouncer(tmp_path / "pooler", server.url, 5)
            ends.callback(pooler.stop)
            project.environment["DATABASE_URL"] = pooler.url("once_project")
        server.hold_commits()
        process = project.once("run")
        wait_until(server.waiting_commits, what="the COMMIT of the claim")
        wait_until(lambda: project.rows(LOCKS) == [], what="the lock to give itself up")
        server.release_commits()
        assert process.finish() == 0, process.output
    assert "gave itself up. The server itself holds it up: IPC SyncRep" in process.output
    assert "pool" not in process.output
    assert project.effects() == ["seed"]


def test_commits_without_an_answer_that_took_place(own_project: Project, server: Server) -> None:
    project = own_project
    project.routines(KINDS)
    processes = {name: project.once("run", f"plant.{name}") for name in NAMES}
    for name in NAMES:
        project.wait_for(name)
    server.hold_commits()
    for name in NAMES:
        project.release(name)
    wait_until(lambda: len(server.waiting_commits()) == len(NAMES))
    for pid in server.waiting_commits():
        server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    server.release_commits()
    for process in processes.values():
        assert process.finish() == 0, process.output
    assert {name: len(calls(project.directory, name)) for name in NAMES} == {
        "atomic": 1,
        "external": 1,
        "last": 3,
        "middle": 3,
    }
    assert project.effects() == EACH_ONCE
    assert project.attempts() == [
        ("plant.atomic", 1, "succeeded"),
        ("plant.external", 1, "succeeded"),
        ("plant.last", 1, "succeeded"),
        ("plant.middle", 1, "interrupted"),
        ("plant.middle", 2, "succeeded"),
    ]


def crash_and_lose_a_commit(project: Project, server: Server) -> None:
    """Crash the server, and see that this was such a crash."""
    project.execute("INSERT INTO shop_effect (name, pid) VALUES ('lost', 0)")
    assert "lost" in project.effects()
    server.crash()
    assert "lost" not in project.effects()


def test_crash_that_loses_commits_repeats_no_body_that_may_be_called_once(
    own_project: Project, server: Server
) -> None:
    project = own_project
    project.routines(
        """
        from tests.shop.calls import note


        @routine(atomic=False, retry=False)
        def announce(run):
            note("announce", run)
            hold("announce")


        @routine(atomic=False, retry=False)
        def tell(run):
            note("tell", run)
            hold("tell")


        @routine(retry=False)
        def charge(run):
            note("charge", run)
            effect("charge")
            hold("charge")
        """
    )
    [(database,)] = project.rows("SELECT current_database()")
    server.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    names = ["announce", "tell", "charge"]

    server.keep_commits_in_memory()
    announcer = project.once("run", "plant.announce")
    project.wait_for("announce")
    crash_and_lose_a_commit(project, server)
    announcer.kill()
    project.release("announce")

    server.keep_commits_in_memory()
    processes = {name: project.once("run", f"plant.{name}") for name in ("tell", "charge")}
    for name in processes:
        project.wait_for(name)
    for name, process in processes.items():  # of whose commits the first alone must be on disk
        project.release(name)
        assert process.finish() == 0, process.output
    assert project.effects() == ["charge"]
    crash_and_lose_a_commit(project, server)
    assert project.effects() == []
    assert project.completions() == ["plant.tell"]

    after = project.once("run", "--keep-going")
    assert after.finish() == 5, after.output
    for name in names:
        assert len(calls(project.directory, name)) == 1
    states = {name: routine["state"] for name, routine in project.status().items()}
    assert states == {"plant.announce": "held", "plant.tell": "completed", "plant.charge": "held"}


def test_server_restarted_during_an_external_body(own_project: Project, server: Server) -> None:
    project = own_project
    project.routines(KINDS)
    process = project.once(
        "run", "plant.external", TEST_HOLD="once.engine.attempt:Work._end_own_session=unrecorded"
    )
    project.wait_for("external")
    server.stop()
    project.release("external")
    project.wait_for("unrecorded")  # no recording, and nobody to ask
    server.start()
    project.release("unrecorded")
    assert process.finish() == 0, process.output
    assert len(calls(project.directory, "external")) == 1
    assert project.attempts() == [("plant.external", 1, "succeeded")]
