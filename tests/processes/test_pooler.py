"""PgBouncer in transaction mode, where it has fewer connections than a run needs."""

import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.processes.http import Server
from tests.project import Process, Project
from tests.servers import PgBouncer
from tests.waiting import GRACE, PATIENCE, wait_until

pytestmark = [
    pytest.mark.django_db(databases=[]),
    pytest.mark.parametrize("kind", ["pgbouncer-1"]),
]

ROUTINES = """
    @routine
    def seed():
        effect("seed")

    @routine(atomic=False)
    def announce():
        effect("announce")

    @routine(over=lambda: ["one", "two"], batch_size=1)
    def fill(names):
        effect(names[0])
"""
#: Of this project's database: other tests may run on the same server.
LOCKS = """
    SELECT l.pid FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND d.datname = current_database()
"""
IDLE = """
    SELECT pid FROM pg_stat_activity
    WHERE state LIKE 'idle in %' AND datname = current_database()
"""
ADVICE = "A run needs two connections at once, or three where a migration waits for it"
SILENCE = "No answer for 10.0 s. The server hangs, a table is locked, or a pooler, where one stands"


def assert_nothing_is_left(project: Project) -> None:
    assert project.effects() == project.completions() == []
    assert {state for _, _, state in project.attempts()} <= {"interrupted"}
    wait_until(lambda: project.rows(LOCKS) == [], what="the server to free what ended")
    wait_until(lambda: project.rows(IDLE) == [], what="the pooler to end what the test held")


def assert_told_in_time(process: Process, limit: float) -> None:
    """See that the process gave up soon after its deadline, as it tells itself."""
    told = re.findall(r"(?:For|Gave up after) (\S+) s\b", process.output)
    assert 0 < max(map(float, told)) < limit + GRACE, process.output


@pytest.mark.parametrize(
    ("arguments", "patience"),
    # Longer than a lock keeps the one connection while its work waits for another: up to 3 s.
    [(["run"], "8"), (["run", "--timeout=8"], "60"), (["run", "--migrate", "--timeout=8"], "60")],
    ids=["patience", "timeout", "migrate"],
)
def test_pool_of_one_is_named_within_the_deadline(
    project: Project, pools: dict[int, PgBouncer], arguments: list[str], patience: str
) -> None:
    project.routines(ROUTINES)
    process = project.once(*arguments, ONCE_STARTUP_TIMEOUT=patience)
    assert process.finish() == 4, process.output
    assert_told_in_time(process, 8.0)
    assert ADVICE in process.output, process.output
    assert "Traceback" not in process.output
    assert_nothing_is_left(project)
    name = urlsplit(project.admin_url).path.removeprefix("/")
    again = project.once("run", "--migrate", DATABASE_URL=pools[2].url(name))
    assert again.finish() == 0, again.output
    assert project.effects() == ["announce", "one", "seed", "two"]


def test_server_behind_a_pool_of_one_starts_and_goes_on_trying(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.routines(ROUTINES)
    # Longer than a lock keeps the one connection while its work waits for another: up to 3 s.
    server = Server(project, "gunicorn", "--workers=1", ONCE_STARTUP_TIMEOUT="8")
    try:
        # No request before: its answer needs the one connection, too.
        server.process.wait_for("event=startup_incomplete")
        assert ADVICE in server.output, server.output
        server.wait_for(503)
    finally:
        server.end()
    wait_until(lambda: project.rows(LOCKS) == [])


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--migrate"], ["wait"]], ids=lambda parts: " ".join(parts)
)
def test_full_pool_does_not_outlast_the_deadline(project: Project, arguments: list[str]) -> None:
    project.routines(ROUTINES)
    with psycopg.connect(project.url) as other:
        other.execute("SELECT 1")  # its transaction keeps the pool's one connection
        process = project.once(*arguments, "--timeout=2")
        assert process.finish() == 4, process.output
        assert_told_in_time(process, 2.0)
        # The deadline counts from before, which on a loaded machine is a while.
        pattern = r"No answer for [012]\.\d s\. The server hangs, a table is locked, or a pooler"
        assert re.search(pattern, process.output), process.output
    assert_nothing_is_left(project)


def test_full_pool_is_named_to_who_looks(project: Project) -> None:
    project.routines(ROUTINES)
    with psycopg.connect(project.url) as other:
        other.execute("SELECT 1")
        reset = project.once("reset", "plant.seed", "--no-input")
        for process in (project.once("status", "--check"), reset):
            assert process.finish() == 4, process.output
            assert SILENCE in process.output
    assert_nothing_is_left(project)


def test_pool_that_is_full_before_a_batch_is_named(
    project: Project, pools: dict[int, PgBouncer]
) -> None:
    project.routines(ROUTINES)
    url = pools[2].url(urlsplit(project.admin_url).path.removeprefix("/"))
    process = project.once(
        "run",
        "--timeout=5",
        "plant.fill",
        DATABASE_URL=url,
        ONCE_STARTUP_TIMEOUT="5",
        TEST_HOLD="once.engine.batching:_Passage._next=batch",
    )
    project.wait_for("batch")
    with psycopg.connect(url) as one, psycopg.connect(url) as next_one:
        one.execute("SELECT 1")
        with ThreadPoolExecutor() as threads:
            # It comes first, also where the lock gives itself up.
            is_lent = threads.submit(next_one.execute, "SELECT 1")
            wait_until(lambda: pools[2].waiting() == 1, what="a client in the pooler's queue")
            project.release("batch")
            is_lent.result(PATIENCE)
        assert process.finish() == 4, process.output
    assert SILENCE in process.output
    again = project.once("run", "plant.fill", DATABASE_URL=url)
    assert again.finish() == 0, again.output
    assert project.effects() == ["one", "two"]


def test_server_before_a_full_pool_starts_and_goes_on_once_it_is_not(project: Project) -> None:
    project.routines(ROUTINES)
    with psycopg.connect(project.url) as other:
        other.execute("SELECT 1")
        server = Server(project, "gunicorn", ONCE_STARTUP_TIMEOUT="2")
        try:
            server.process.wait_for("event=startup_incomplete")
            server.process.wait_for("No answer")
        finally:
            server.end()


def test_readiness_says_no_before_a_probe_gives_up(project: Project) -> None:
    project.routines(ROUTINES)
    with psycopg.connect(project.url) as other:
        other.execute("SELECT 1")
        server = Server(project, "gunicorn", ONCE_STARTUP="off")
        try:
            server.wait_for(503)
            server.process.wait_for("event=readiness_unknown")
        finally:
            server.end()
