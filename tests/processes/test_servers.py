"""Every server that people run Django with: what runs where, as docs/reference/servers.md says."""

import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes.http import Serve, Server
from tests.processes.test_startup import (
    COMPLAINTS,
    DONE,
    HOLDING,
    INCOMPLETE,
    ROUTINES,
    STRICT,
)
from tests.project import ROOT, Project
from tests.servers import missing
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.django_db(databases=[])

Boot = Callable[..., Server]

DOCUMENTATION = (ROOT / "docs" / "reference" / "servers.md").read_text()
WSGI = "tests.wsgi:application"
ASGI = "tests.asgi:application"
GUNICORN = f"--no-control-socket --workers 2 --bind {{address}} {WSGI}"
UVICORN_WORKER = "gunicorn --worker-class uvicorn_worker.UvicornWorker"
ASGI_WORKER = "gunicorn --worker-class asgi"
UVICORN = f"--host {{host}} --port {{port}} {ASGI}"
GRANIAN = "--host {host} --port {port}"
UWSGI = "--processes 2 --need-app --die-on-term --http-socket {address} --module tests.wsgi"
CELERY = "--loglevel INFO"


class Case(NamedTuple):
    """One row of the table in docs/reference/servers.md."""

    #: How the server is started: what the table names, and what that needs besides.
    command: str
    rest: str
    #: Where routines of the databases run, and those in memory.
    runs_in: str
    memory_in: str
    #: In how many processes those in memory run, here.
    processes: int = 2


CASES = [
    Case("gunicorn", GUNICORN, "one worker", "each worker"),
    Case("gunicorn --preload", GUNICORN, "the master", "the master", 1),
    Case("gunicorn --worker-class gthread", GUNICORN, "one worker", "each worker"),
    Case("gunicorn --worker-class gthread --preload", GUNICORN, "the master", "the master", 1),
    Case("gunicorn --worker-class gevent", GUNICORN, "one worker", "each worker"),
    Case(
        "gunicorn --worker-class gevent --preload",
        f"--config tests/gevent_first.py {GUNICORN}",
        "the master",
        "the master",
        1,
    ),
    Case(ASGI_WORKER, GUNICORN.replace("wsgi", "asgi"), "one worker", "each worker"),
    Case(UVICORN_WORKER, GUNICORN.replace("wsgi", "asgi"), "one worker", "each worker"),
    Case(
        f"{UVICORN_WORKER} --preload",
        GUNICORN.replace("wsgi", "asgi"),
        "the master",
        "the master",
        1,
    ),
    Case("uvicorn", UVICORN, "the process", "the process", 1),
    Case("uvicorn --workers 2", UVICORN, "one worker", "each worker"),
    Case("daphne", f"--bind {{host}} --port {{port}} {ASGI}", "the process", "the process", 1),
    Case("hypercorn", f"--bind {{address}} {ASGI}", "one worker", "each worker", 1),
    Case("hypercorn --workers 2", f"--bind {{address}} {ASGI}", "one worker", "each worker"),
    Case("granian --interface wsgi --workers 2", f"{GRANIAN} {WSGI}", "one worker", "each worker"),
    Case(
        "granian --interface asginl --workers 2", f"{GRANIAN} {ASGI}", "one worker", "each worker"
    ),
    Case("uwsgi --master", UWSGI, "the master", "the master", 1),
    Case("uwsgi --master --enable-threads", UWSGI, "the master", "the master", 1),
    Case("uwsgi --master --lazy-apps", UWSGI, "one worker", "each worker"),
    Case("uwsgi --master --lazy-apps --enable-threads", UWSGI, "one worker", "each worker"),
    Case("celery -A tests.tasks worker", f"-c 2 {CELERY}", "the master", "the master", 1),
    Case(
        "celery -A tests.tasks beat",
        f"--schedule {{directory}}/schedule --pidfile= {CELERY}",
        "the process",
        "the process",
        1,
    ),
    # The table names it as people do.
    Case("tests.manage runserver", "{address}", "the child", "the reloader and the child"),
    Case("tests.manage runserver --noreload", "{address}", "the process", "the process", 1),
]
BY_COMMAND = {case.command: case for case in CASES}
#: What a body does for minutes: it waits for its release, or for an answer of the database.
IN_PYTHON = 'hold("body")'
IN_SQL = 'reach("body"); connection.cursor().execute("SELECT pg_sleep(600)")'
#: In this project's database: other tests may run on the same server.
ASLEEP = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event = 'PgSleep' AND datname = current_database()"
)
COROUTINE = """
    @routine
    async def fetch():
        await Effect.objects.acreate(name="fetch")
"""
assert COROUTINE in ROUTINES


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.fixture
def boot(serve: Serve) -> Boot:
    """Starts a server of the table."""

    def start(command: str, *options: str, **environment: str) -> Server:
        program = command.split()[0]
        if program == "uwsgi" and not (Path(sys.executable).parent / program).exists():
            missing(program)
        for module in (program, "gevent", "uvicorn_worker"):
            is_program = module == "uwsgi" or module.startswith("tests.")
            if module in command and not is_program and importlib.util.find_spec(module) is None:
                missing(module)
        return serve(f"{command} {BY_COMMAND[command].rest}", *options, **environment)

    return start


#: A server passes a signal on within 5 s, but not on a machine that is loaded.
SLOW_ECHO = f"""
    from once.engine import shutdown

    shutdown._ECHO = {PATIENCE}
"""


def _plant(project: Project, case: Case) -> list[tuple[str, int, str]]:
    """Write routines that a server can run; the attempts that come of it."""
    if "gevent" not in case.command:
        project.routines(ROUTINES)
        return DONE
    project.routines(ROUTINES.replace(COROUTINE, ""))
    return [attempt for attempt in DONE if attempt[0] != "plant.fetch"]


def _name(case: Case) -> str:
    """How the log calls a server."""
    program, *rest = case.command.removeprefix("tests.").split()
    if program == "manage":
        return f'"manage.py {rest[0]}"'
    return f'"celery {rest[-1]}"' if program == "celery" else program


def _is_celery(case: Case) -> bool:
    return case.command.startswith("celery")


def _memory(project: Project) -> list[int]:
    path = project.directory / "handshake" / "memory"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def _states(project: Project) -> set[str]:
    """How attempts ended: a worker that is told a moment later may have begun the next one."""
    return {state for _, _, state in project.attempts()}


def _sessions(project: Project) -> int:
    return int(
        project.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )[0][0]
    )


def _patient(command: str) -> tuple[str, ...]:
    """Options by which gunicorn, too, ends no worker that does not heed its signal."""
    return ("--graceful-timeout", "600") if command.startswith("gunicorn") else ()


def _listening(command: str) -> int:
    """The number of workers that are to listen before a signal is sent to all processes."""
    return 2 if command.startswith("gunicorn") and "--preload" not in command else 0


def _lacks_threads(server: Server) -> bool:
    return "Python threads support is disabled" in server.output


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command)
def test_server_runs_each_routine_once(project: Project, boot: Boot, case: Case) -> None:
    done = _plant(project, case)
    strict = dict(STRICT)
    if case.command.startswith("granian"):
        # Its own master has threads as it forks; it never imports the application.
        strict["PYTHONWARNINGS"] = strict["PYTHONWARNINGS"].replace("always:This", "ignore:This")
    server = boot(case.command, **strict)
    if _is_celery(case):
        server.process.wait_for("event=startup_complete")
    else:
        server.wait_for(200)
    assert f"event=startup_complete by={_name(case)} " in server.output
    wait_until(lambda: len(_memory(project)) >= case.processes, what=lambda: server.output)
    # These two do not bear to be stopped before each worker has started.
    for program, text in (("uwsgi", "WSGI app 0"), ("granian", "Started worker")):
        if case.command.startswith(program):
            server.process.wait_for(text, case.processes)
    wait_until(lambda: _sessions(project) == 0, what="sessions of the start-up to end")
    if not _is_celery(case):
        assert [server.get() for _ in range(6)] == [200] * 6
    assert project.attempts() == done
    assert project.effects() == [routine.removeprefix("plant.") for routine, _, _ in done]
    memory = _memory(project)
    assert len(set(memory)) == len(memory) == case.processes
    runners = {pid for (pid,) in project.rows("SELECT pid FROM once_attempt")}
    assert runners <= set(memory)
    if case.runs_in in ("the master", "the process"):
        assert runners == {server.pid}
    elif case.runs_in == "the child":
        assert server.pid not in runners
    if case.memory_in == "each worker":
        assert server.pid not in memory
    assert not COMPLAINTS.search(server.output), server.output
    assert ("event=no_threads" in server.output) is _lacks_threads(server)
    if not _is_celery(case):  # which takes its time
        assert server.stop() in (0, -15), server.output
        assert not COMPLAINTS.search(server.output), server.output


# What is left to do after the fork


@pytest.mark.parametrize("is_migrated", [False])
@pytest.mark.parametrize("startup", ["run", "background"])
@pytest.mark.parametrize(
    "command",
    [
        "gunicorn --preload",
        "gunicorn --worker-class gevent --preload",
        "uwsgi --master --enable-threads",
        "uwsgi --master --lazy-apps --enable-threads",
        "celery -A tests.tasks worker",
        "celery -A tests.tasks beat",
    ],
)
def test_what_cannot_be_done_yet_is_done_where_threads_live(
    project: Project, boot: Boot, command: str, startup: str
) -> None:
    case = BY_COMMAND[command]
    done = _plant(project, case)
    server = boot(case.command, ONCE_STARTUP=startup, **STRICT)
    server.process.wait_for(INCOMPLETE)
    if _is_celery(case):
        server.process.wait_for("ready." if "worker" in command else "Starting...")
    else:
        server.wait_for(503)
    assert project.manage("migrate").finish() == 0
    wait_until(lambda: project.attempts() == done, what=lambda: server.output)
    if not _is_celery(case):
        server.wait_for(200)
    runners = {pid for (pid,) in project.rows("SELECT pid FROM once_attempt")}
    assert (server.pid in runners) is _is_celery(case)
    wait_until(lambda: _sessions(project) == 0, what="sessions of the start-up to end")
    assert project.effects() == [routine.removeprefix("plant.") for routine, _, _ in done]
    assert not COMPLAINTS.search(server.output), server.output


@pytest.mark.parametrize("is_migrated", [False])
@pytest.mark.parametrize("command", ["uwsgi --master", "uwsgi --master --lazy-apps"])
def test_uwsgi_without_threads_leaves_what_cannot_be_done_yet(
    project: Project, boot: Boot, command: str
) -> None:
    project.routines(ROUTINES)
    server = boot(command, ONCE_STARTUP="background")
    server.process.wait_for(INCOMPLETE)
    server.wait_for(503)
    assert project.manage("migrate").finish() == 0
    if _lacks_threads(server):
        assert "nothing here tries again" in server.output
        assert project.once("run").finish() == 0
    server.wait_for(200)
    assert project.attempts() == DONE
    assert project.effects() == ["fetch", "seed"]


# What takes long


@pytest.mark.parametrize(
    ("command", "seconds", "options"),
    [
        ("gunicorn", 35, ()),  # whose own timeout is 30 s
        ("gunicorn --worker-class gthread", 6, ("--timeout", "3")),
        ("gunicorn --worker-class gevent", 6, ("--timeout", "3")),
        (UVICORN_WORKER, 6, ("--timeout", "3")),
    ],
)
def test_routine_outlasts_gunicorns_timeout(
    project: Project, boot: Boot, command: str, seconds: int, options: tuple[str, ...]
) -> None:
    project.routines(f"""
        @routine
        def seed():
            effect("seed")
            time.sleep({seconds})
    """)
    server = boot(command, "--workers", "3", *options)
    server.process.wait_for("event=finished")
    server.wait_for(200)
    wait_until(lambda: server.output.count("event=waited") == 2, what=lambda: server.output)
    assert [server.get() for _ in range(6)] == [200] * 6
    assert project.attempts() == [("plant.seed", 1, "succeeded")]
    assert project.effects() == ["seed"]
    assert server.output.count("Booting worker") == 3
    assert not re.search("TIMEOUT|died|SIGKILL", server.output), server.output


@pytest.mark.parametrize(
    "command",
    [
        "gunicorn",
        "gunicorn --worker-class gthread",
        "gunicorn --worker-class gevent",
        ASGI_WORKER,
        UVICORN_WORKER,
        "gunicorn --preload",
    ],
)
def test_gunicorn_that_waits_for_another_process_can_be_stopped(
    project: Project, boot: Boot, command: str
) -> None:
    project.routines(HOLDING)
    holder = project.once("run")
    project.wait_for("body")
    server = boot(command, *_patient(command))
    server.process.wait_for("event=waiting", BY_COMMAND[command].processes)
    assert server.stop() in (0, -15), server.output
    if "gevent" not in command:  # whose hub prints what passes through it
        assert "Traceback" not in server.output
    project.release("body")
    assert holder.finish() == 0
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("gunicorn", 0),
        ("gunicorn --worker-class gthread", 0),
        ("gunicorn --worker-class gevent", 0),
        (ASGI_WORKER, 0),
        (UVICORN_WORKER, 0),
        ("gunicorn --preload", -15),
        ("uvicorn", -15),
        ("uvicorn --workers 2", 0),
        ("daphne", -15),
        ("granian --interface wsgi --workers 2", 0),
        ("granian --interface asginl --workers 2", 0),
        ("tests.manage runserver --noreload", -15),
        ("celery -A tests.tasks worker", -15),
        ("celery -A tests.tasks beat", 0),
    ],
)
@pytest.mark.parametrize("lasts", [IN_PYTHON, IN_SQL], ids=["Python", "SQL"])
def test_stopped_server_rolls_its_routine_back_at_once(
    project: Project, boot: Boot, command: str, code: int, lasts: str
) -> None:
    """No body ends before the test gives up, and no server ends it by force."""
    project.routines(f"""
        @routine
        def seed():
            effect("seed")
            {lasts}
    """)
    server = boot(command, *_patient(command))
    project.wait_for("body")
    if lasts == IN_SQL:
        wait_until(lambda: project.rows(ASLEEP) == [(1,)], what=lambda: server.output)
    assert server.stop() == code, server.output
    assert project.effects() == []
    assert _states(project) == {"interrupted"}, server.output
    if "gevent" not in command:  # whose hub prints what passes through it
        assert "Traceback" not in server.output


@pytest.mark.parametrize(
    "command",
    [
        case.command
        for case in CASES
        # The reloader kills its child.
        if not case.command.startswith("uwsgi") and case.command != "tests.manage runserver"
    ],
)
def test_sigterm_to_all_processes_is_one_interruption(
    project: Project, boot: Boot, command: str
) -> None:
    """As systemd sends it. To workers, their server sends it again while they end the attempt."""
    project.routines(HOLDING + SLOW_ECHO)
    server = boot(command, *_patient(command), TEST_HOLD="once.engine.verdict:conclude=ended")
    project.wait_for("body")
    server.send_to_all(signal.SIGTERM, _listening(command))
    project.wait_for("ended")
    for program, text in (("granian", "Shutting down"), ("gunicorn", "Handling signal")):
        if command.startswith(program) and "--preload" not in command:
            server.process.wait_for(text)
    if command == "hypercorn --workers 2":  # which ends one after another one has ended
        wait_until(lambda: len(server.workers) == 1, what=lambda: server.output)
    project.release("ended")
    server.process.finish()
    assert _states(project) == {"interrupted"}, server.output


def test_hypercorn_ends_after_its_routine(project: Project, boot: Boot) -> None:
    """It tells its workers by an event, which they read as they serve."""
    project.routines(HOLDING)
    server = boot("hypercorn")
    project.wait_for("body")
    server.send(signal.SIGTERM)
    project.release("body")
    assert server.process.finish() == 0, server.output
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


@pytest.mark.parametrize(
    "command",
    [
        "gunicorn",
        "gunicorn --worker-class gthread",
        "gunicorn --worker-class gevent",
        ASGI_WORKER,
        UVICORN_WORKER,
        "uvicorn",
        "uvicorn --workers 2",
        "daphne",
        "granian --interface wsgi --workers 2",
        "granian --interface asginl --workers 2",
        "tests.manage runserver --noreload",
    ],
)
def test_ctrl_c_while_a_routine_runs_is_an_interruption(
    project: Project, boot: Boot, command: str
) -> None:
    """All processes get SIGINT, for which gunicorn's master sends SIGQUIT to its workers."""
    project.routines(HOLDING)
    server = boot(command, *_patient(command))
    project.wait_for("body")
    server.send_to_all(signal.SIGINT, _listening(command))
    server.process.finish()
    assert project.effects() == []
    assert _states(project) == {"interrupted"}, server.output
    before = len(project.attempts())
    project.release("body")
    boot(command).wait_for(200)  # and not after the retry delay
    assert project.attempts()[before:] == [("plant.seed", before + 1, "succeeded")]


@pytest.mark.parametrize(
    "command",
    [
        "gunicorn",
        "gunicorn --worker-class gthread",
        "gunicorn --worker-class gevent",
        ASGI_WORKER,
        UVICORN_WORKER,
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_that_comes_just_before_the_run_begins_no_attempt(
    project: Project, boot: Boot, command: str, number: signal.Signals
) -> None:
    project.routines(HOLDING)
    server = boot(command, *_patient(command), TEST_HOLD="once.startup.serve:begin=told")
    project.wait_for("told", 2)
    workers = project.reached("told")
    server.process.send(number)
    server.process.wait_for("Handling signal")
    for worker in workers:  # as the master does, but it may not have come to that yet
        os.kill(worker, signal.SIGTERM if number == signal.SIGTERM else signal.SIGQUIT)
    project.release("told")
    server.process.finish()
    assert project.attempts() == [], server.output


# A worker that replaces another

RESET = """
    @routine
    def seed():
        effect("seed")
        if os.path.exists(os.environ["HANDSHAKE"] + "/broken.go"):
            raise ValueError("no such brand")
"""


@pytest.mark.parametrize(
    ("command", "options", "number"),
    [
        ("gunicorn", (), signal.SIGKILL),
        ("gunicorn --worker-class gthread", ("--workers", "1"), signal.SIGKILL),
        ("gunicorn --worker-class gevent", (), signal.SIGKILL),
        (ASGI_WORKER, (), signal.SIGKILL),
        (UVICORN_WORKER, (), signal.SIGKILL),
        ("gunicorn --preload", (), signal.SIGKILL),
        (
            "granian --interface wsgi --workers 2",
            ("--respawn-failed-workers",),
            signal.SIGKILL,
        ),
        ("hypercorn --workers 2", ("--max-requests", "1"), None),
    ],
)
def test_worker_that_replaces_one_of_a_ready_server_serves_what_it_can(
    project: Project, boot: Boot, command: str, options: tuple[str, ...], number: int | None
) -> None:
    """Where it raised, the server would end all workers, healthy as they are."""
    project.routines(RESET)
    server = boot(command, *options, ONCE_RETRY_DELAY="1")
    server.wait_for(200)
    starts = 1 if "--preload" in command else len(server.workers)
    wait_until(
        lambda: server.output.count("event=startup_complete") >= starts,
        what=lambda: server.output,
    )
    assert project.once("reset", "--no-input", "plant.seed").finish() == 0
    project.release("broken")
    before = server.workers
    if number is not None:
        os.kill(before[-1], number)
    # Where a worker ends after some requests, these let it.
    wait_until(
        lambda: server.get("/nothing/") and set(server.workers) - set(before),
        what=lambda: server.output,
    )
    if "--preload" not in command:
        server.process.wait_for("since it replaces one of a server that was up; it goes on trying")
        assert "ValueError: no such brand" in server.output
    server.wait_for(404, "/nothing/")
    assert {server.get() for _ in range(8)} - {0} == {200}
    assert server.process.is_running(), server.output


# gevent


@pytest.mark.parametrize("unsafe", ["", "true"])
def test_coroutine_under_gevent_is_refused_before_it_writes_elsewhere(
    project: Project, boot: Boot, unsafe: str
) -> None:
    project.routines(COROUTINE)
    server = boot("gunicorn --worker-class gevent", DJANGO_ALLOW_ASYNC_UNSAFE=unsafe)
    assert server.process.finish() != 0
    assert "Make it a plain `def`" in server.output
    assert project.effects() == []


@pytest.mark.parametrize(
    ("kind", "body", "first"),
    [
        # Pings come in between, since psycopg waits by gevent.
        ("postgresql", "time.sleep(4)", "succeeded"),
        ("postgresql", 'connection.cursor().execute("SELECT pg_sleep(4)")', "succeeded"),
        ("mariadb", 'connection.cursor().execute("SELECT SLEEP(4)")', "lost"),
        ("postgresql", "while time.monotonic() < since + 4: pass", "lost"),
    ],
    ids=["sleeps", "asks psycopg", "asks mysqlclient", "computes"],
)
def test_body_under_gevent_lasts_longer_than_the_liveness_timeout(
    project: Project, boot: Boot, body: str, first: str
) -> None:
    project.routines(f"""
    @routine
    def seed():
        effect("seed")
        since = time.monotonic()
        {body}
    """)
    case = BY_COMMAND["gunicorn --worker-class gevent"]
    server = boot(case.command, ONCE_LIVENESS_TIMEOUT="1", ONCE_RETRY_DELAY="1")
    server.wait_for(200)
    assert project.effects() == ["seed"]
    states = [state for _, _, state in project.attempts()]
    assert (states[0], states.count("succeeded")) == (first, 1), server.output
    assert "failed" not in states, server.output
    assert server.process.is_running(), server.output


# The table of the documentation


def test_documentation_says_what_these_tests_prove() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| .* \|$", DOCUMENTATION, re.MULTILINE)
    shown = {"tests.manage": "manage.py", "tests.tasks": "config"}
    cases = []
    for command, _, runs_in, memory_in, _ in CASES:
        for ours, theirs in shown.items():
            command = command.replace(ours, theirs)
        cases.append((command, runs_in, memory_in))
    assert rows == cases
