"""Start-up with real servers: who runs what is pending, when, and what happens where it cannot."""

import importlib.util
import json
import os
import re
import signal
import socket
import sys
import textwrap

import pytest

from tests.processes.conftest import Pooler
from tests.processes.http import Serve, Server
from tests.project import APPS, Project
from tests.servers import free_port, missing
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(databases=[])

#: ``memory`` leaves a line for each time that it ran, with the process that ran it.
ROUTINES = """
    @routine
    def seed():
        effect("seed")

    @routine
    async def fetch():
        await Effect.objects.acreate(name="fetch")

    @routine(scope="process")
    def memory():
        with open(os.environ["HANDSHAKE"] + "/memory", "a") as lines:
            lines.write(f"{os.getpid()}\\n")
"""
HOLDING = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""
FAILING = """
    @routine
    def seed():
        effect("seed")
        if not os.path.exists(os.environ["HANDSHAKE"] + "/mended.go"):
            raise ValueError("no such brand")
"""
#: Leaves a thread that is about to end, as an executor does that nobody shuts down.
LINGERING = """
    @routine
    def linger():
        import threading

        threading.Thread(target=time.sleep, args=[0.5]).start()
"""
DONE = [("plant.fetch", 1, "succeeded"), ("plant.seed", 1, "succeeded")]
STRICT = {
    "PYTHONWARNINGS": (
        "always:<psycopg:ResourceWarning,always:This process:DeprecationWarning,"
        "error::RuntimeWarning"
    )
}
#: Of queries before every app is ready, of forks beside threads, of connections left behind.
COMPLAINTS = re.compile("RuntimeWarning|multi-threaded|deleted while still open")


@pytest.fixture
def kind() -> str:
    return "postgresql"


def _apps(order: str) -> str:
    others = [app for app in APPS if app != "once"]
    position = {"first": 0, "middle": 2, "last": len(others)}[order]
    return ",".join([*others[:position], "once", *others[position:]])


def _memory(project: Project) -> list[int]:
    """The processes in which ``memory`` ran, once for each time."""
    path = project.directory / "handshake" / "memory"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def _workers(server: Server) -> list[int]:
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", server.output)]


def _sessions(project: Project) -> int:
    """How many sessions the database has, besides the one that asks."""
    return int(
        project.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )[0][0]
    )


# What runs where


@pytest.mark.parametrize(
    ("server", "order", "processes", "kind"),
    [
        ("uvicorn", "first", 1, "postgresql"),
        ("uvicorn-workers", "last", 2, "sqlite"),
        ("gunicorn", "middle", 2, "sqlite"),
        ("runserver", "middle", 2, "postgresql"),  # the reloader sets Django up as well
        ("runserver-noreload", "last", 1, "postgresql"),
    ],
)
def test_server_runs_routines_once_without_a_warning(
    project: Project, serve: Serve, server: str, order: str, processes: int
) -> None:
    project.routines(ROUTINES)
    started = serve(server, TEST_APPS=_apps(order), **STRICT)
    started.wait_for(200)
    wait_until(lambda: len(_memory(project)) >= processes, what=lambda: started.output)
    started.stop()
    assert project.effects() == ["fetch", "seed"]
    assert project.attempts() == DONE
    assert len(set(_memory(project))) == len(_memory(project)) == processes
    assert not COMPLAINTS.search(started.output), started.output


@pytest.mark.parametrize("order", ["first", "middle", "last"])
def test_two_gunicorns_with_three_workers_each_run_routines_once(
    project: Project, serve: Serve, order: str
) -> None:
    project.routines(ROUTINES)
    servers = [
        serve("gunicorn", "--workers", "3", TEST_APPS=_apps(order), **STRICT) for _ in range(2)
    ]
    for server in servers:
        server.wait_for(200)
    wait_until(lambda: len(_memory(project)) >= 6, what=lambda: servers[0].output)
    assert [server.stop() for server in servers] == [0, 0]
    assert project.effects() == ["fetch", "seed"]
    assert project.attempts() == DONE
    assert _memory(project) == sorted(_workers(servers[0]) + _workers(servers[1]))
    for server in servers:
        assert not COMPLAINTS.search(server.output), server.output


@pytest.mark.parametrize(
    ("server", "processes"),
    [("gunicorn", 2), ("preload", 1), ("uvicorn", 1), ("runserver", 2)],
)
def test_off_leaves_in_memory_routines_alone_to_run(
    project: Project, serve: Serve, server: str, processes: int
) -> None:
    project.routines(ROUTINES)
    started = serve(server, ONCE_STARTUP="off")
    started.wait_for(503)
    wait_until(lambda: len(_memory(project)) >= processes, what=lambda: started.output)
    started.stop()
    assert len(set(_memory(project))) == len(_memory(project)) == processes
    assert project.attempts() == []
    assert project.effects() == []


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn", "uvicorn-workers"])
def test_async_in_memory_routine_runs_in_every_kind_of_server(
    project: Project, serve: Serve, server: str
) -> None:
    project.routines("""
        @routine(scope="process")
        async def memory():
            reach("memory")
    """)
    serve(server).wait_for(200)
    assert project.reached("memory")


TESTS = """
    from django.test import SimpleTestCase, TestCase
    from tests.shop.models import Effect

    class Offline(SimpleTestCase):
        def test_nothing(self):
            pass
"""
TESTS_WITH_A_DATABASE = """
    class Online(TestCase):
        def test_nothing_ran(self):
            self.assertFalse(Effect.objects.exists())
"""
TEST_COMMAND = ("-m", "tests.manage", "test", "--noinput", "plant")
SETUP = ("-c", "import django; django.setup()")
COMMANDS = [
    ("-m", "tests.manage", "check"),
    ("-m", "tests.manage", "collectstatic", "--noinput"),
    ("-m", "tests.manage", "makemigrations", "once", "--check", "--dry-run"),
    TEST_COMMAND,
    SETUP,
]


def _run(project: Project, *arguments: str, **environment: str) -> str:
    """Run a command to its good end, with what collectstatic needs; its output."""
    environment = {
        "TEST_APPS": f"django.contrib.staticfiles,{_apps('middle')}",
        "TEST_STATIC": str(project.directory / "static"),
        **environment,
    }
    process = project.start(sys.executable, *arguments, **environment)
    assert process.finish() == 0, process.output
    return process.output


@pytest.mark.parametrize(
    "arguments",
    [
        *COMMANDS,
        ("-m", "tests.manage", "migrate"),
        ("-m", "tests.manage", "shell", "-c", "print(1)"),
        ("-m", "tests.manage", "runserver", "--noreload", "--help"),
    ],
    ids=" ".join,
)
def test_command_runs_no_routine(project: Project, arguments: tuple[str, ...]) -> None:
    project.routines(ROUTINES)
    tests = textwrap.dedent(TESTS) + textwrap.dedent(TESTS_WITH_A_DATABASE)
    (project.directory / "plant" / "tests.py").write_text(tests)
    output = _run(project, *arguments, **STRICT)
    assert "event=" not in output
    assert project.attempts() == []
    assert project.effects() == []
    assert len(_memory(project)) == 1


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(
    ("arguments", "tests"),
    [*((command, TESTS) for command in COMMANDS), (TEST_COMMAND, "")],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(bool(value)),
)
def test_command_works_without_a_database(
    project: Project, arguments: tuple[str, ...], tests: str
) -> None:
    project.routines(ROUTINES)
    (project.directory / "plant" / "tests.py").write_text(textwrap.dedent(tests))
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    # makemigrations itself warns that it cannot see the database.
    strict = {} if "makemigrations" in arguments else STRICT
    assert "event=" not in _run(project, *arguments, DATABASE_URL=nowhere, **strict)


@pytest.mark.parametrize("order", ["first", "last"])
def test_routines_run_once_every_app_is_ready(project: Project, order: str) -> None:
    """Pins what Django does not document: Apps.populate ends by setting ``ready_event``."""
    (project.directory / "plant" / "apps.py").write_text(
        textwrap.dedent("""
            from django.apps import AppConfig

            class PlantConfig(AppConfig):
                name = "plant"
                returned = False

                def ready(self):
                    self.returned = True
        """)
    )
    project.routines("""
        from django.apps import apps

        @routine(scope="process")
        def look():
            plant = apps.get_app_config("plant")
            print("seen:", apps.ready, apps.ready_event.is_set(), plant.returned)
    """)
    output = _run(project, *SETUP, TEST_APPS=_apps(order))
    assert output.splitlines() == ["seen: True True True"]


@pytest.mark.parametrize("order", ["first", "last"])
def test_apps_that_a_ready_loads_again_run_routines_once_at_the_end_of_all(
    project: Project, order: str
) -> None:
    """As registries of plugins do, before or behind this app."""
    (project.directory / "plant" / "apps.py").write_text(
        textwrap.dedent("""
            from django.apps import AppConfig, apps
            from django.conf import settings

            state = {"loaded": 0, "returned": 0}

            class PlantConfig(AppConfig):
                name = "plant"

                def ready(self):
                    state["loaded"] += 1
                    if state["loaded"] == 1:
                        apps.app_configs.clear()
                        apps.apps_ready = apps.models_ready = apps.loading = apps.ready = False
                        apps.clear_cache()
                        apps.populate(settings.INSTALLED_APPS)
                    state["returned"] += 1
        """)
    )
    project.routines(
        ROUTINES
        + """
    @routine(scope="process")
    def look():
        from plant.apps import state

        print("seen:", state["loaded"], state["returned"])
    """
    )
    process = project.server(TEST_APPS=_apps(order))
    assert process.finish() == 0, process.output
    assert "seen: 2 2\n" in process.output
    assert project.attempts() == DONE
    assert len(_memory(project)) == 1


def test_ready_called_again_runs_nothing(project: Project) -> None:
    project.routines(ROUTINES)
    script = """
        from django.apps import apps
        from once.models import Completion
        from tests.shop.models import Effect

        assert Completion.objects.all().delete()[0] == Effect.objects.all().delete()[0] == 2
        apps.get_app_config("once").ready()
        apps.get_app_config("once").ready()
    """
    process = project.server(textwrap.dedent(script))
    assert process.finish() == 0, process.output
    assert project.effects() == []
    assert project.attempts() == DONE
    assert len(_memory(project)) == 1


@pytest.mark.parametrize("setting", ["", "['CONN_MAX_AGE'] = 600", "['OPTIONS']['pool'] = True"])
def test_no_session_crosses_the_fork_of_a_preloading_gunicorn(
    project: Project, serve: Serve, setting: str
) -> None:
    if "pool" in setting and importlib.util.find_spec("psycopg_pool") is None:
        missing("psycopg_pool")
    project.settings(f"default{setting}\n" if setting else "")
    project.routines(ROUTINES + LINGERING)
    server = serve("preload", **STRICT)
    server.process.wait_for("Booting worker", times=2)
    assert project.attempts() == [*DONE[:1], ("plant.linger", 1, "succeeded"), *DONE[1:]]
    assert project.rows("SELECT DISTINCT pid FROM once_attempt") == [(server.pid,)]
    wait_until(lambda: _sessions(project) == 0, what="the master's sessions to end")
    assert [server.get() for _ in range(8)] == [200] * 8
    assert not COMPLAINTS.search(server.output), server.output


def test_work_and_start_are_told_where_no_logging_is_configured(
    project: Project, serve: Serve
) -> None:
    project.settings("LOGGING = {}\n")
    project.routines(ROUTINES)
    server = serve("gunicorn")
    server.wait_for(200)
    server.process.wait_for("event=startup_complete", times=2)
    lines = re.findall(r"^\S+ \S+ (\d+) INFO once (event=.+)$", server.output, re.MULTILINE)
    [runner] = {int(pid) for pid, line in lines if "event=started" in line}
    assert runner in _workers(server)
    for routine in ("plant.seed", "plant.fetch"):
        work = [line.split()[0] for pid, line in lines if f"routine={routine} " in line]
        assert work == ["event=started", "event=finished"]
    starts = sorted(int(pid) for pid, line in lines if line.startswith("event=startup"))
    assert starts == sorted(_workers(server))


# What cannot be done yet

INCOMPLETE = "event=startup_incomplete"
#: Servers and how many processes of each begin what is pending.
STARTERS = [("gunicorn", 2), ("preload", 1), ("uvicorn", 1), ("uvicorn-workers", 2)]


@pytest.mark.parametrize("is_migrated", [False])
@pytest.mark.parametrize(("server", "starters"), STARTERS)
def test_missing_tables_are_waited_for_beside_the_server(
    project: Project, serve: Serve, server: str, starters: int
) -> None:
    project.routines(ROUTINES)
    started = serve(server)
    started.wait_for(503)
    started.process.wait_for(INCOMPLETE, starters)
    assert "Run `manage.py once run --migrate`" in started.output
    assert project.manage("migrate").finish() == 0
    started.wait_for(200)
    assert project.effects() == ["fetch", "seed"]
    assert project.attempts() == DONE
    assert started.output.count(INCOMPLETE) == starters
    if server == "preload":  # a thread of the master would be missing in its workers
        runners = {pid for (pid,) in project.rows("SELECT pid FROM once_attempt")}
        assert runners <= set(_workers(started))


@pytest.mark.parametrize(("server", "starters"), STARTERS)
def test_unreachable_database_is_waited_for_beside_the_server(
    project: Project, serve: Serve, pooler: Pooler, server: str, starters: int
) -> None:
    project.routines(ROUTINES)
    started = serve(server, **pooler.environment)
    started.wait_for(503)
    started.process.wait_for(INCOMPLETE, starters)
    assert project.attempts() == []
    pooler.start()
    started.wait_for(200)
    assert project.effects() == ["fetch", "seed"]
    assert project.attempts() == DONE
    if server in ("gunicorn", "preload"):
        assert len(_workers(started)) == 2, started.output


def test_silent_database_does_not_keep_the_server_from_starting(
    project: Project, serve: Serve
) -> None:
    project.routines(ROUTINES)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://nobody@127.0.0.1:{port}/nothing"
        server = serve("gunicorn", DATABASE_URL=url, ONCE_STARTUP_TIMEOUT="1")
        server.process.wait_for(INCOMPLETE, times=2)
        server.wait_for(404, "/nothing/")


@pytest.mark.parametrize("recycling", ["kill", "max-requests"])
def test_worker_recycled_without_a_database_leaves_gunicorn_serving(
    project: Project, serve: Serve, pooler: Pooler, recycling: str
) -> None:
    project.routines(ROUTINES)
    pooler.start()
    options = ["--max-requests", "1"] if recycling == "max-requests" else []
    server = serve("gunicorn", *options, **pooler.environment)
    server.wait_for(200)
    server.process.wait_for("Booting worker", times=2)
    pooler.stop()
    if recycling == "kill":
        os.kill(_workers(server)[0], signal.SIGKILL)
    else:
        server.wait_for(404, "/nothing/")
    server.process.wait_for(INCOMPLETE)
    server.wait_for(404, "/nothing/")
    wait_until(lambda: server.get() in (200, 503), what=lambda: server.output)
    pooler.start()
    server.wait_for(200)
    assert server.process.is_running(), server.output
    assert project.attempts() == DONE


# What fails


@pytest.mark.parametrize("server", ["gunicorn", "preload", "uvicorn", "runserver-noreload"])
def test_failing_routine_stops_the_server_and_is_named(
    project: Project, serve: Serve, server: str
) -> None:
    project.routines(FAILING)
    failed = serve(server)
    # gunicorn: 4, the application failed to load, or 1, where it did in two workers at once and it
    # trips over that.
    assert failed.process.finish() in (1, 4), failed.output
    named = "routine=plant.seed .* state=failed .*ValueError: no such brand"
    assert re.search(named, failed.output)
    assert project.effects() == []
    assert {state for _, _, state in project.attempts()} == {"failed"}
    # The traceback of the body once, and that of the server without what this package did.
    assert failed.output.count('raise ValueError("no such brand")') == 1
    assert "another exception" not in failed.output.partition("HaltServer")[0]
    assert "once/startup/serve.py" not in failed.output


LINES = {
    "detail": (
        """
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE brand (name text PRIMARY KEY)")
            cursor.execute("INSERT INTO brand VALUES ('a'), ('a')")
        """,
        'IntegrityError: duplicate key value violates unique constraint "brand_pkey".',
    ),
    "group": (
        'raise ExceptionGroup("no such brands", [ValueError("no such brand"), KeyError(1)])',
        "ExceptionGroup: no such brands (2 sub-exceptions): ValueError: no such brand.",
    ),
    "long": ('raise ValueError("x" * 5_000)', f"ValueError: {'x' * 282} [...]."),
}


@pytest.mark.parametrize(("body", "line"), LINES.values(), ids=[*LINES])
def test_server_that_a_routine_stops_ends_with_the_first_line_of_its_error(
    project: Project, serve: Serve, body: str, line: str
) -> None:
    """Nothing of the detail, of the other errors, or of a text without end, which the log has."""
    project.routines(f"""
    @routine
    def seed():
        {textwrap.indent(textwrap.dedent(body).strip(), " " * 8).lstrip()}
    """)
    server = serve("uvicorn")
    assert server.process.finish() == 1, server.output
    last = server.output.splitlines()[-1]
    assert last.startswith(f"once.exceptions.RoutineFailed: plant.seed: {line} Nothing of")
    assert len(last) < 500
    [finished] = re.findall("event=finished .* state=failed .*", server.output)
    assert f"message={json.dumps(line)[:-1]} Nothing of" in finished


def test_start_that_fails_is_told_in_a_screen(project: Project, serve: Serve) -> None:
    """Also of a routine behind one that failed before, which is no news."""
    project.environment["ONCE_RETRY_DELAY"] = "600"
    project.settings("LOGGING = {}\n")
    project.routines("""
        @routine
        def seed():
            raise LookupError("no such shop")
    """)
    assert project.once("run").finish() == 1
    project.routines("""
        @routine
        def seed():
            raise LookupError("no such shop")

        @routine
        def fill():
            raise ValueError("no such brand")
    """)
    server = serve("gunicorn", "--workers", "4")
    assert server.process.finish() in (1, 4), server.output
    # Without what gunicorn adds where it trips.
    said, *_ = re.split(r'Traceback.*\n  File ".*/arbiter.py", line \d+, in run\n', server.output)
    assert said.count("Traceback") == said.count('raise ValueError("no such brand")') == 1
    assert "RoutineFailed" not in said  # in no worker, because the log says it
    assert len(said.splitlines()) < 40, said


@pytest.mark.parametrize("server", ["gunicorn", "preload", "uvicorn"])
def test_logged_failure_lets_the_server_start_and_try_again(
    project: Project, serve: Serve, server: str
) -> None:
    project.routines(FAILING)
    started = serve(server, ONCE_STARTUP_FAILURE="log", ONCE_RETRY_DELAY="1")
    started.wait_for(503)
    assert started.get("/nothing/") == 404
    # Another worker may have found the failure, and serve, before this is told.
    started.process.wait_for("plant.seed: ValueError: no such brand")
    project.release("mended")
    started.wait_for(200)
    assert project.effects() == ["seed"]


# What takes long


@pytest.mark.parametrize("server", ["gunicorn", "preload", "uvicorn-workers", "runserver"])
def test_server_waits_for_who_runs_a_routine(project: Project, serve: Serve, server: str) -> None:
    project.routines(HOLDING)
    holder = project.once("run")
    project.wait_for("body")
    started = serve(server)
    started.process.wait_for("event=waiting for=plant.seed")
    assert f"(pid {holder.pid})" in started.output
    project.release("body")
    started.wait_for(200)
    assert holder.finish() == 0
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


@pytest.mark.parametrize(
    ("server", "options"),
    [
        ("gunicorn", ("--timeout", "2")),
        ("uvicorn-workers", ("--timeout-worker-healthcheck", "4")),
    ],
)
def test_routine_outlasts_the_patience_of_the_workers_supervisor(
    project: Project, serve: Serve, server: str, options: tuple[str, ...]
) -> None:
    project.routines(HOLDING)
    started = serve(server, *options)
    lasts = "SELECT count(*) FROM once_attempt WHERE started_at < now() - interval '5 s'"
    wait_until(lambda: project.rows(lasts) == [(1,)], what=lambda: started.output)
    project.release("body")
    started.wait_for(200)
    assert len(project.reached("body")) == 1
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]
    assert not re.search("TIMEOUT|died|SIGKILL", started.output), started.output
    assert len(_workers(started)) in (2, 0)  # uvicorn does not name them so


@pytest.mark.parametrize("server", ["uvicorn", "uvicorn-workers"])
def test_body_beside_an_event_loop_may_import_what_is_being_imported(
    project: Project, serve: Serve, server: str
) -> None:
    """In a thread of its own it would wait for ever for the lock of that module."""
    project.routines("""
        @routine
        def seed():
            import tests.asgi

            effect("seed")

        @routine
        async def fetch():
            await Effect.objects.acreate(name="fetch")
    """)
    serve(server).wait_for(200)
    assert project.attempts() == DONE


def test_wrong_setting_is_named_by_check_and_keeps_no_command_from_working(
    project: Project,
) -> None:
    project.routines(ROUTINES)
    check = project.manage("check", ONCE_STARTUP="of")
    assert check.finish() == 1
    assert "once.E001" in check.output
    assert "Traceback" not in check.output
    assert project.manage("shell", "-c", "pass", ONCE_STARTUP="of").finish() == 0


WRONG = """
    @routine(version=0)
    def seed():
        pass
"""


@pytest.mark.parametrize("command", ["check", "migrate", "once status"])
def test_declaration_that_cannot_work_ends_a_command_with_its_place(
    command: str, project: Project
) -> None:
    project.routines(WRONG)
    ended = project.start(sys.executable, "-m", "django", *command.split())
    assert ended.finish() == 2, ended.output
    [line] = ended.output.splitlines()
    assert line.startswith("RoutineError: ")
    assert "plant/routines.py:" in line
    traced = project.start(sys.executable, "-m", "django", "check", "--traceback")
    assert traced.finish() == 1
    assert "Traceback" in traced.output
