"""``once doctor`` names what is wrong with a deployment, and finds nothing in one that is right."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.faults.balancer import balanced
from tests.faults.support import Server
from tests.project import ROOT, Project
from tests.servers import PgBouncer, database_url, free_port
from tests.waiting import wait_until

SEED = """
    @routine
    def seed():
        pass
"""

#: What is found where nothing is wrong, and in this order.
ON_A_SERVER = ["tables", "pool", "exclusion", "eviction", "endurance", "statement", "fencing"]
RECORD = ["privileges", "clock", "routines"]
SESSIONS = ["server", "driver", "session", "durability"]
WELL = {
    "postgresql": [*SESSIONS, *ON_A_SERVER, *RECORD],
    "pgbouncer": [*SESSIONS[:2], "pooler", *SESSIONS[2:], *ON_A_SERVER, *RECORD],
    "sqlite": ["server", "tables", "exclusion", "eviction", "privileges", "routines"],
}

on_postgresql = pytest.mark.parametrize("kind", ["postgresql"])


@dataclass(frozen=True)
class Diagnosis:
    """What the command found."""

    code: int
    out: str
    err: str

    @property
    def findings(self) -> list[dict[str, str]]:
        """What is in the one object on stdout."""
        shown = json.loads(self.out)
        assert list(shown) == ["schema", "healthy", "counts", "findings"]
        assert shown["schema"] == 1
        assert shown["healthy"] is (self.code == 0)
        assert sum(shown["counts"].values()) == len(shown["findings"])
        found: list[dict[str, str]] = shown["findings"]
        for finding in found:
            assert list(finding) == ["id", "database", "level", "message", "hint"]
            assert finding["message"]
        return found

    def of(self, level: str) -> list[str]:
        """Ids of what was found to be so."""
        return [finding["id"] for finding in self.findings if finding["level"] == level]

    def said(self, name: str) -> str:
        """Message and hint about something."""
        [finding] = [finding for finding in self.findings if finding["id"] == name]
        return f"{finding['message']} {finding['hint']}".strip()


def doctor(project: Project, *arguments: str, **environment: str) -> Diagnosis:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.manage", "once", "doctor", *(arguments or ["--json"])],
        cwd=ROOT,
        env={**project.environment, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "ResourceWarning" not in ended.stderr, ended.stderr
    assert "Exception in thread" not in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    return Diagnosis(ended.returncode, ended.stdout, ended.stderr)


def record(project: Project) -> list[tuple[Any, ...]]:
    """All that the tables of once hold."""
    return [
        *project.rows("SELECT * FROM once_attempt ORDER BY id"),
        *project.rows("SELECT * FROM once_completion ORDER BY id"),
    ]


def kept(project: Project) -> list[tuple[Any, ...]]:
    """Locks that sessions hold, and locks that are open."""
    if project.is_sqlite:
        return []
    here = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    return [
        *project.rows(f"SELECT * FROM pg_locks WHERE locktype = 'advisory' AND database = {here}"),
        *project.rows(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND (application_name LIKE 'once %' OR state LIKE 'idle in transaction%')"
        ),
    ]


def assert_nothing_is_kept(project: Project) -> None:
    """The server may notice the end of a process a moment later."""
    wait_until(lambda: kept(project) == [], what=lambda: f"the end of {kept(project)}")


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer-2", "pgbouncer", "sqlite"])
def test_deployment_that_is_right(project: Project, kind: str) -> None:
    project.routines(SEED)
    # Two at once do not meet, unless the pool is too small for both.
    at_once = 1 if kind == "pgbouncer-2" else 2
    with ThreadPoolExecutor(at_once) as pool:
        for found in pool.map(lambda _: doctor(project), range(at_once)):
            assert found.code == 0, found
            assert found.of("fault") == []
            assert found.of("warning") == []
            assert found.of("ok") == WELL[kind.partition("-")[0]]
            assert found.err == ""
    assert record(project) == []
    assert_nothing_is_kept(project)


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_texts_while_a_routine_runs_and_others_wait_for_somebody(project: Project) -> None:
    project.routines(
        """
        @routine
        def left():
            hold("left")

        @routine(atomic=False, retry=False)
        def risky():
            hold("risky")

        @routine
        def gone():
            pass

        @routine(atomic=False)
        def long():
            hold("long")
        """
    )
    assert project.once("run", "plant.gone").finish() == 0
    for name in ("left", "risky"):
        process = project.once("run", f"plant.{name}")
        project.wait_for(name)
        process.kill()
    # The code of the next release has one routine less.
    path = project.directory / "plant" / "routines.py"
    path.write_text(path.read_text().replace("@routine\ndef gone", "def gone"))
    running = project.once("run", "plant.long")
    project.wait_for("long")
    before = record(project)
    beside = doctor(project)
    assert (beside.code, beside.of("fault")) == (0, [])
    assert record(project) == before
    [(host,)] = project.rows("SELECT DISTINCT host FROM once_attempt")
    if project.is_sqlite:
        # One lock for all: whoever holds it may be at work on any of them.
        assert beside.of("warning") == []
        assert f"which {host} (pid {running.pid}) holds, is refused" in beside.said("exclusion")
    else:
        assert beside.of("warning") == ["orphan", "held"]
    project.release("long")
    assert running.finish() == 0, running.output
    before = record(project)
    shown = doctor(project, "--no-color", COLUMNS="80")
    assert record(project) == before
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("default  ok       server      ")
    said = " ".join(shown.out.split())
    assert "Recorded, and not in this code: plant.gone." in said
    assert "warning orphan plant.left was left half-way: no process holds its lock." in said
    assert f"Next: Attempt 1 on {host} (pid " in said
    assert "ended without a word. The next `manage.py once run` or server start takes over" in said
    assert "warning held plant.risky is held. Next: " in said
    assert "`manage.py once reset plant.risky` has it tried again" in said
    assert "plant.long" not in said


@pytest.mark.parametrize("kind", ["pgbouncer-1"])
def test_pool_of_one(project: Project) -> None:
    project.routines(SEED)
    found = doctor(project)
    assert found.code == 1
    assert found.of("fault") == ["pool"]
    assert "had none within 5 s: a pooler lends too few" in found.said("pool")
    assert "default_pool_size" in found.said("pool")
    assert "CommandError: This deployment cannot keep the promise yet: pool (default)." in found.err
    assert_nothing_is_kept(project)


@contextmanager
def pooled(project: Project, directory: Path, *settings: str) -> Iterator[str]:
    """The URL of a project's database behind a pooler that is set up so."""
    pooler = PgBouncer(directory / "pooler", database_url(), 5, *settings)
    try:
        yield pooler.url(urlsplit(project.admin_url).path[1:])
    finally:
        pooler.stop()


@on_postgresql
def test_pooler_that_does_not_keep_transactions(project: Project, tmp_path: Path) -> None:
    project.routines(SEED)
    with pooled(project, tmp_path, "pool_mode = statement") as url:
        found = doctor(project, DATABASE_URL=url)
    assert (found.code, found.of("fault")) == (1, ["pool"])
    assert "A pooler in statement mode stands before the server." in found.said("pool")
    assert "pool_mode = transaction" in found.said("pool")


@on_postgresql
def test_pooler_that_ends_locks_early(project: Project, tmp_path: Path) -> None:
    project.routines(SEED)
    with pooled(project, tmp_path, "idle_transaction_timeout = 1") as url:
        # Signs of life come long before that, on a loaded machine as well.
        found = doctor(project, DATABASE_URL=url, ONCE_LIVENESS_TIMEOUT="1")
    assert (found.code, found.of("fault")) == (1, ["eviction"])
    assert "though it may be silent for 2 s" in found.said("eviction")
    assert "idle_transaction_timeout" in found.said("eviction")


@on_postgresql
def test_pooler_that_ends_locks_before_their_first_sign_of_life(
    project: Project, tmp_path: Path
) -> None:
    """It is longer than what the eviction is tried with, and shorter than a third of L."""
    project.routines(SEED)
    with pooled(project, tmp_path, "idle_transaction_timeout = 3") as url:
        found = doctor(project, DATABASE_URL=url, ONCE_LIVENESS_TIMEOUT="15")
        assert (found.code, found.of("fault")) == (1, ["endurance"])
        assert "before its first sign of life" in found.said("endurance")
        assert "idle_transaction_timeout above ONCE_LIVENESS_TIMEOUT" in found.said("endurance")
        assert doctor(project, DATABASE_URL=url, ONCE_LIVENESS_TIMEOUT="6").code == 0


@on_postgresql
def test_pooler_that_ends_statements(project: Project, tmp_path: Path) -> None:
    project.routines(
        """
        @routine
        def long():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(4)")
        """
    )
    with pooled(project, tmp_path, "query_timeout = 3") as url:
        found = doctor(project, DATABASE_URL=url, ONCE_LIVENESS_TIMEOUT="15")
        assert (found.code, found.of("fault")) == (1, ["endurance", "statement"])
        said = found.said("statement")
        assert "A statement of 5.0 s did not come to its end, nor would a body" in said
        assert "query timeout" in said
        assert "set query_timeout and transaction_timeout to 0" in said
        lost = found.said("endurance")
        assert "was lost: OperationalError: " in lost
        assert "query timeout" in lost
        brief = doctor(project, DATABASE_URL=url, ONCE_LIVENESS_TIMEOUT="3")
        assert (brief.code, brief.of("fault")) == (0, [])
        assert "of 1.0 s came to its end. No longer one was tried" in brief.said("statement")
        run = project.once("run", "--timeout=3", DATABASE_URL=url)
        assert run.finish() == 4, run.output
        assert "INTERRUPTED" in run.output
        assert "query timeout" in run.output


@on_postgresql
def test_balancer_over_two_databases(project: Project, migrated: dict[str, str]) -> None:
    project.routines(SEED)
    names = [urlsplit(url).path[1:] for url in (project.admin_url, migrated["postgresql"])]
    with balanced(project.admin_url, *names) as url:
        found = doctor(project, DATABASE_URL=url)
    assert (found.code, found.of("fault")) == (1, ["exclusion"])
    assert "Two sessions had the same lock at the same time, one on" in found.said("exclusion")
    for database in names:
        assert f"on database {database} of the server on port" in found.said("exclusion")
    assert "name the primary there" in found.said("exclusion")
    assert_nothing_is_kept(project)


@on_postgresql
def test_tables_missing_migrations_unapplied_and_read_only(project: Project) -> None:
    project.routines(SEED)
    project.execute("DELETE FROM django_migrations WHERE app = 'auth' AND name LIKE '0012%'")
    lagging = doctor(project)
    assert (lagging.code, lagging.of("warning")) == (0, ["tables"])
    assert "auth.0012" in lagging.said("tables")
    assert "`manage.py once run --migrate`" in lagging.said("tables")
    project.execute("DROP TABLE once_attempt CASCADE")
    empty = doctor(project)
    assert (empty.code, empty.of("fault")) == (1, ["tables"])
    assert "Run `manage.py migrate once`, then this again." in empty.said("tables")
    [(name,)] = project.rows("SELECT current_database()")
    project.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    read_only = doctor(project)
    assert (read_only.code, read_only.of("fault")) == (1, ["read-only"])


@on_postgresql
def test_database_out_of_reach_and_usage(project: Project) -> None:
    project.routines(SEED)
    project.environment["DATABASE_URL"] = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    found = doctor(project)
    assert (found.code, found.of("fault")) == (1, ["server"])
    assert "Check that it runs" in found.said("server")
    usage = doctor(project, "--database", "nowhere")
    assert (usage.code, usage.out) == (2, "")
    assert "is not in DATABASES" in usage.err
    other = doctor(project, "--database", "sqlite", "-v", "0")
    assert (other.code, other.out.split()[:3]) == (1, ["sqlite", "fault", "tables"])
    assert "`manage.py migrate once --database sqlite`" in " ".join(other.out.split())


def test_hot_standby(own_project: Project, server: Server) -> None:
    own_project.routines(SEED)
    server.stop()
    server.follow()
    server.start()
    found = doctor(own_project)
    assert (found.code, found.of("fault")) == (1, ["read-only"])
    assert "It is a standby" in found.said("read-only")
    assert "Point HOST at the primary" in found.said("read-only")


@pytest.fixture
def roles(own_project: Project) -> Iterator[dict[str, str]]:
    """Roles of the server, each with the URL under which it logs in."""
    names = ("once_app", "once_owner", "once_other", "once_reader", "once_stranger")
    with psycopg.connect(own_project.admin_url, autocommit=True) as session:
        for role in names:
            session.execute(f"CREATE ROLE {role} LOGIN")
        for role in names[:3]:
            session.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    yield {role: own_project.url.replace("postgres:@", f"{role}:@") for role in names}
    with psycopg.connect(own_project.admin_url, autocommit=True) as session:
        for role in names:
            session.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_role_that_lacks_privileges(own_project: Project, roles: dict[str, str]) -> None:
    own_project.routines(SEED)
    own_project.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO once_reader")
    own_project.execute("GRANT INSERT ON once_attempt TO once_reader")
    reader = doctor(own_project, DATABASE_URL=roles["once_reader"])
    assert reader.code == 1
    assert set(reader.of("fault")) == {"privileges"}
    said = " ".join(finding["message"] for finding in reader.findings)
    assert "UPDATE on once_attempt, DELETE on once_attempt: " in said
    assert "INSERT on once_completion, UPDATE on once_completion, DELETE on once_completi" in said
    assert "INSERT on once_attempt" not in said
    stranger = doctor(own_project, DATABASE_URL=roles["once_stranger"])
    assert (stranger.code, stranger.of("fault")) == (1, ["tables"])
    assert "permission denied for table django_migrations" in stranger.said("tables")
    assert record(own_project) == []


def test_role_that_may_not_end_sessions(own_project: Project, roles: dict[str, str]) -> None:
    project = own_project
    project.routines(SEED)
    # Django logs in as one role and becomes another: the sessions are the first one's.
    project.execute("GRANT once_owner TO once_app")
    url = f"{roles['once_app']}&assume_role=once_owner"
    assumed = doctor(project, DATABASE_URL=url)
    # Servers of another role are not seen, but the role is.
    assert (assumed.code, assumed.of("fault"), assumed.of("warning")) == (0, [], ["roles"])
    assert "as well (once_other), and once_app may not end" in assumed.said("roles")
    project.execute("GRANT pg_signal_backend TO once_app")
    assert doctor(project, DATABASE_URL=url).of("warning") == []
    project.execute("REVOKE ALL ON FUNCTION pg_terminate_backend FROM PUBLIC")
    forbidden = doctor(project, DATABASE_URL=url)
    assert (forbidden.code, forbidden.of("fault")) == (1, ["fencing"])
    grant = "GRANT EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint) TO once_owner"
    assert grant in forbidden.said("fencing")
    project.execute(grant)
    assert doctor(project, DATABASE_URL=url).code == 0


@on_postgresql
def test_signal_ends_it_and_frees_what_it_holds(project: Project) -> None:
    project.routines(SEED)
    process = project.once(
        "doctor", TEST_HOLD="once.databases.session_lock:SessionLock.stop_heartbeat=held"
    )
    project.wait_for("held")
    process.send(signal.SIGTERM)
    assert process.finish() == 143, process.output
    assert_nothing_is_kept(project)
