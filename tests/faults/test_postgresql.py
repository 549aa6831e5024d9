"""Faults of processes, sessions and servers, against a real PostgreSQL."""

import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

from tests.project import Project
from tests.servers import embedded_postgresql
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])

SEED = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""

GUARD = "application_name LIKE 'once %%' AND state = 'idle in transaction'"
WORK = (
    "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory') "
    "AND application_name NOT LIKE 'once %%'"
)


def terminate(project: Project, where: str) -> None:
    ended = project.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        f"WHERE datname = current_database() AND {where.replace('%%', '%')}"
    )
    assert ended == [(True,)]


def test_guard_terminated_and_nobody_else_there(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    terminate(project, GUARD)
    project.release("body")
    assert holder.finish() == 0, holder.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


def test_guard_terminated_while_another_waits(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    terminate(project, GUARD)
    project.wait_for("body", processes=2)
    project.release("body")
    assert waiter.finish() == 0, waiter.output
    assert holder.finish() == 1, holder.output
    assert "lost its right to commit" in holder.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


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
    assert project.attempts() == [("plant.seed", 1, "failed"), ("plant.seed", 2, "succeeded")]


@pytest.mark.parametrize(
    "step",
    ["once.ledger:begin=step", "once.claim:Claim._fence=step", "once.work:Work.do=step"],
    ids=["between-guard-and-claim", "between-claim-and-fence", "between-fence-and-work"],
)
def test_frozen_before_its_work_and_thawed_after_a_takeover(project: Project, step: str) -> None:
    project.routines(SEED)
    frozen = project.once("run", TEST_HOLD=step)
    project.wait_for("step")
    frozen.send(signal.SIGSTOP)
    successor = project.once("run")
    project.wait_for("body")
    frozen.send(signal.SIGCONT)
    project.release("step")
    # The zombie finds out, leaves its live successor alone, and waits for it.
    frozen.wait_for(f"pid {successor.pid}")
    project.release("body")
    assert successor.finish() == 0, successor.output
    assert frozen.finish() == 0, frozen.output
    assert project.reached("body") == [successor.pid]
    assert project.effects() == ["seed"]
    assert [state for *_, state in project.attempts()].count("succeeded") == 1


def test_frozen_after_its_work_and_before_its_commit(project: Project) -> None:
    project.routines('@routine\ndef seed():\n    effect("seed")\n    reach("body")')
    frozen = project.once("run", TEST_HOLD="once.ledger:complete=after:step")
    project.wait_for("step")
    frozen.send(signal.SIGSTOP)
    successor = project.once("run")
    assert successor.finish() == 0, successor.output
    project.release("step")
    frozen.send(signal.SIGCONT)
    assert frozen.finish() == 1, frozen.output
    assert "lost its right to commit" in frozen.output
    assert project.effects() == ["seed"]


@pytest.mark.parametrize("point", ["once.ledger:begin", "once.claim:Claim._fence"])
def test_killed_before_its_work(project: Project, point: str) -> None:
    project.routines(SEED)
    project.release("body")
    holder = project.once("run", TEST_HOLD=f"{point}=step")
    project.wait_for("step")
    holder.kill()
    successor = project.once("run")
    assert successor.finish() == 0, successor.output
    assert project.effects() == ["seed"]


def test_killed_between_effect_and_commit(project: Project) -> None:
    project.routines('@routine\ndef seed():\n    effect("seed")')
    holder = project.once("run", TEST_HOLD="once.ledger:complete=after:step")
    project.wait_for("step")
    holder.kill()
    assert project.effects() == []
    successor = project.once("run")
    assert successor.finish() == 0, successor.output
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "lost"), ("plant.seed", 2, "succeeded")]


@pytest.mark.parametrize("table", ["once_completion", "once_attempt"])
def test_locked_table_is_waited_for(project: Project, table: str) -> None:
    project.routines(SEED)
    project.release("body")
    with psycopg.connect(project.admin_url) as session:
        session.execute(f"LOCK TABLE {table}")
        process = project.once("run")
        process.wait_for("lock timeout")
    assert process.finish() == 0, process.output
    assert project.effects() == ["seed"]


def test_guard_whose_server_falls_silent_is_lost_in_time(project: Project) -> None:
    project.routines(SEED)
    holder = project.once("run", TEST_HOLD="once.work:Work.do=step")
    project.wait_for("step")
    [(backend,)] = project.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'once %' AND state = 'idle in transaction'"
    )
    os.kill(backend, signal.SIGSTOP)
    try:
        project.release("step")
        holder.wait_for("no answer for")
    finally:
        os.kill(backend, signal.SIGCONT)
    project.release("body")
    assert holder.finish() == 0, holder.output
    assert project.effects() == ["seed"]


def test_roles_timeouts_do_not_end_guard_or_waiters(project: Project) -> None:
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


def test_missing_right_to_end_a_zombie_is_named(own_project: Project) -> None:
    project = own_project  # roles belong to a server
    with psycopg.connect(project.admin_url, autocommit=True) as session:
        for role in ("once_zombie", "once_heir"):
            session.execute(f"DROP ROLE IF EXISTS {role}")
            session.execute(f"CREATE ROLE {role} LOGIN")
            session.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            session.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    urls = {
        role: project.url.replace("postgres:@", f"{role}:@")
        for role in ("once_zombie", "once_heir")
    }
    try:
        project.routines(SEED)
        zombie = project.once("run", DATABASE_URL=urls["once_zombie"])
        project.wait_for("body")
        zombie.send(signal.SIGSTOP)
        heir = project.once("run", DATABASE_URL=urls["once_heir"])
        heir.wait_for("GRANT pg_signal_backend TO")
        hurried = project.once("run", "--no-wait", DATABASE_URL=urls["once_heir"])
        assert hurried.finish() == 3, hurried.output  # the heir has the guard
        heir.kill()
        hurried = project.once("run", "--no-wait", DATABASE_URL=urls["once_heir"])
        assert hurried.finish() == 3, hurried.output
        assert "GRANT pg_signal_backend TO" in hurried.output
        heir = project.once("run", DATABASE_URL=urls["once_heir"])
        heir.wait_for("GRANT pg_signal_backend TO")
        with psycopg.connect(project.admin_url, autocommit=True) as session:
            session.execute("GRANT pg_signal_backend TO once_heir")
        project.wait_for("body", processes=2)
        project.release("body")
        assert heir.finish() == 0, heir.output
        assert project.effects() == ["seed"]
    finally:
        zombie.kill()
        with psycopg.connect(project.admin_url, autocommit=True) as session:
            for role in ("once_zombie", "once_heir"):
                session.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_commit_that_becomes_visible_late(own_project: Project) -> None:
    project = own_project
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    with psycopg.connect(project.admin_url, autocommit=True) as session:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
        session.execute("SELECT pg_reload_conf()")
        project.release("body")
        wait_until(lambda: in_sync_rep(project) == 1)
        holder.kill()
        assert project.effects() == []
        successor = project.once("run")
        wait_until(lambda: in_sync_rep(project) == 2, what=lambda: successor.output)
        session.execute("ALTER SYSTEM RESET synchronous_standby_names")
        session.execute("SELECT pg_reload_conf()")
    assert successor.finish() == 0, successor.output
    assert project.reached("body") == [holder.pid]
    assert project.effects() == ["seed"]


def in_sync_rep(project: Project) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    [(count,)] = project.rows(sql)
    return int(count)


@pytest.fixture
def own_project(project: Project) -> Iterator[Project]:
    """The project on a server of its own, whose configuration a test may change."""
    server = embedded_postgresql()
    project.url = project.admin_url = server.get_uri()
    project.environment["DATABASE_URL"] = project.url
    assert project.manage("migrate", "-v0").finish() == 0
    yield project
    project.close()
    server.cleanup()
