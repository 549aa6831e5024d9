"""Faults of processes, sessions and servers, against real servers."""

import os
import signal
import time

import psycopg
import pytest

from tests.faults.support import LOCK, WORK, session_of, terminate
from tests.project import LIVENESS, Project
from tests.waiting import wait_until

SERVERS = pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
POSTGRESQL = pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])

SEED = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""


@SERVERS
def test_lock_terminated_and_nobody_else_there(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    terminate(project, LOCK)
    project.release("body")
    assert holder.finish() == 0, holder.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


@SERVERS
def test_lock_terminated_while_another_waits(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    terminate(project, LOCK)
    project.wait_for("body", processes=2)
    project.release("body")
    assert waiter.finish() == 0, waiter.output
    assert holder.finish() == 0, holder.output
    assert "lost its right to commit" in holder.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


@SERVERS
def test_work_session_terminated_is_retried(project: Project) -> None:
    project.routines(
        """
        @routine
        def seed(run):
            effect("seed")
            hold(f"body{run.attempt}")
        """
    )
    holder = project.once("run")
    project.wait_for("body1")
    terminate(project, WORK)
    project.release("body1")
    project.release("body2")
    assert holder.finish() == 0, holder.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "interrupted"), ("plant.seed", 2, "succeeded")]


@SERVERS
def test_work_session_terminated_before_its_commit_is_retried(project: Project) -> None:
    project.routines('@routine\ndef seed():\n    effect("seed")')
    holder = project.once("run", TEST_HOLD="once.record.recorder:complete=after:step")
    project.wait_for("step")
    terminate(project, WORK)
    project.release("step")
    assert holder.finish() == 0, holder.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "interrupted"), ("plant.seed", 2, "succeeded")]


@POSTGRESQL
@pytest.mark.parametrize("table", ["once_completion", "once_attempt"])
def test_locked_table_is_waited_for(project: Project, table: str) -> None:
    project.routines(SEED)
    project.release("body")
    with psycopg.connect(project.admin_url) as session:
        session.execute(f"LOCK TABLE {table}")
        process = project.once("run")
        process.wait_for(f"{table} is locked by a session (pid {session.info.backend_pid}")
    assert process.finish() == 0, process.output
    assert "pool" not in process.output
    assert project.effects() == ["seed"]


@POSTGRESQL
def test_lock_whose_server_falls_silent_is_lost_in_time(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run", TEST_HOLD="once.engine.attempt:Work.do=step")
    project.wait_for("step")
    backend = session_of(project, LOCK)
    os.kill(backend, signal.SIGSTOP)
    frozen_at = time.monotonic()
    try:
        # An answer that is fresher than that makes another one unnecessary.
        wait_until(lambda: time.monotonic() - frozen_at > LIVENESS / 10)
        project.release("step")
        holder.wait_for("no answer for")
    finally:
        os.kill(backend, signal.SIGCONT)
    project.release("body")
    assert holder.finish() == 0, holder.output
    assert "pool" not in holder.output
    assert project.effects() == ["seed"]


@POSTGRESQL
def test_roles_timeouts_do_not_end_lock_or_waiters(project: Project) -> None:
    timeouts = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    [(version,)] = project.rows("SELECT current_setting('server_version_num')::int")
    if version >= 170000:
        timeouts.append("transaction_timeout")
    [(name,)] = project.rows("SELECT current_database()")
    with psycopg.connect(project.admin_url, autocommit=True) as session:
        for timeout in timeouts:
            session.execute(f"ALTER DATABASE {name} SET {timeout} = '500ms'")
    project.routines(
        """
        @routine
        def seed():
            effect("seed")
            reach("body")
            time.sleep(1.5)  # longer than the timeouts, which is what is tested
        """
    )
    holder = project.once("run")
    project.wait_for("body")
    waiter = project.once("run")
    assert [holder.finish(), waiter.finish()] == [0, 0], holder.output + waiter.output
    assert project.attempts() == [("plant.seed", 1, "succeeded")]
