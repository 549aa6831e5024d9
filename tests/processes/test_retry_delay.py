"""What failed or died is tried by all starting servers together, not by each of them."""

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise

import pytest

from tests.processes.http import Server
from tests.project import Project
from tests.shop.calls import calls
from tests.waiting import wait_until

Serve = Callable[..., Server]

FAILING = """
    from tests.shop.calls import note


    @routine
    def seed(run):
        note("seed", run)
        hold(f"body{run.attempt}")
        effect("seed")
        if not os.path.exists(os.environ["HANDSHAKE"] + "/mended.go"):
            raise ValueError("no such brand")
"""


@pytest.fixture(params=["postgresql", "mariadb"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def serve(project: Project) -> Iterator[Serve]:
    """Starts servers of the project and ends them with the test."""
    servers: list[Server] = []

    def start(*options: str, **environment: str) -> Server:
        servers.append(Server(project, "gunicorn", *options, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def rest(project: Project) -> float:
    """Seconds between the end of the last attempt and the next one of a server, as it is shown."""
    shown = project.status()["plant.seed"]
    assert shown["state"] == "failed"
    began, again = (datetime.fromisoformat(shown[name]) for name in ("started_at", "retry_at"))
    return (again - began).total_seconds() - float(shown["duration_seconds"])


def called(project: Project) -> int:
    return len(calls(project.directory, "seed"))


def test_failure_counts_for_all_that_start(project: Project) -> None:
    project.environment["ONCE_RETRY_DELAY"] = "600"
    project.routines(FAILING)
    first = project.server()
    project.wait_for("body1")
    others = [project.server() for _ in range(3)]
    for process in others:
        process.wait_for("event=waiting")
    project.release("body1")
    assert first.finish() == 1, first.output
    assert "RoutineFailed: plant.seed: ValueError: no such brand" in first.output
    late = project.server()
    for process in (*others, late):
        assert process.finish() == 1, process.output
        assert "RoutineFailed: plant.seed: Attempt 1 on " in process.output
        assert "ValueError: no such brand. Starting servers try again in" in process.output
        assert "`manage.py once run` tries at once." in process.output
    assert called(project) == 1
    assert rest(project) == pytest.approx(600, abs=1)

    project.release("body2")
    run = project.once("run")
    assert run.finish() == 1, run.output
    assert called(project) == 2
    assert rest(project) == pytest.approx(1200, abs=1)
    project.release("body3")
    project.release("mended")
    assert project.once("run").finish() == 0
    assert project.server().finish() == 0
    assert called(project) == 3
    assert project.effects() == ["seed"]


def test_delay_doubles_for_servers_that_go_on_serving(project: Project, serve: Serve) -> None:
    project.routines(FAILING)
    for number in range(1, 9):
        project.release(f"body{number}")
    environment = {"ONCE_STARTUP_FAILURE": "log", "ONCE_RETRY_DELAY": "1"}
    servers = [serve(**environment) for _ in range(2)]
    for server in servers:
        server.wait_for(404, "/nothing/")
        assert server.get() == 503
    wait_until(lambda: called(project) >= 3)
    project.release("mended")
    for server in servers:
        server.wait_for(200)
    times = project.rows("SELECT started_at, finished_at FROM once_attempt ORDER BY number")
    rested = [(after[0] - before[1]).total_seconds() for before, after in pairwise(times)]
    assert len(rested) == called(project) - 1
    for number, seconds in enumerate(rested):
        assert seconds >= 2**number
    assert project.effects() == ["seed"]


def test_death_is_forgiven_once(project: Project) -> None:
    project.environment["ONCE_RETRY_DELAY"] = "600"
    project.routines(FAILING)
    project.release("mended")
    for number in (1, 2):  # the second one tries at once
        process = project.server()
        project.wait_for(f"body{number}")
        process.kill()
    third = project.server()
    assert third.finish() == 0, third.output  # a server starts and goes on trying
    assert "ended without a word. Starting servers try again in" in third.output
    assert called(project) == 2
    project.release("body3")
    run = project.once("run")
    assert run.finish() == 0, run.output
    assert project.effects() == ["seed"]


def test_background_serves_meanwhile(project: Project, serve: Serve) -> None:
    project.routines(FAILING)
    project.release("mended")
    server = serve("--workers", "3", ONCE_STARTUP="background")
    project.wait_for("body1")
    server.wait_for(404, "/nothing/")
    assert [server.get() for _ in range(5)] == [503] * 5
    assert called(project) == 1
    project.release("body1")
    server.wait_for(200)
    assert called(project) == 1
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]


def test_held_routine_keeps_no_server_from_starting(project: Project, serve: Serve) -> None:
    project.routines(FAILING.replace("@routine", "@routine(atomic=False, retry=False)"))
    process = project.server()
    project.wait_for("body1")
    process.kill()
    server = serve()
    server.wait_for(503)
    server.process.wait_for("event=startup_incomplete", times=2)
    assert "`manage.py once reset plant.seed` has it tried again" in server.output
    assert called(project) == 1
    assert project.once("run", "--fake", "plant.seed").finish() == 0
    server.wait_for(200)
    assert called(project) == 1


@pytest.mark.parametrize("kind", ["postgresql"])
def test_runserver_tries_again_whenever_code_is_saved(project: Project) -> None:
    project.environment["ONCE_RETRY_DELAY"] = "600"
    failing = FAILING.replace("hold(f", "reach(f")
    project.routines(failing)
    server = Server(project, "runserver")

    def fails_with(text: str, source: str) -> bool:
        project.routines(source)  # again and again: at first, the reloader does not look yet
        return f"RoutineFailed: plant.seed: ValueError: no such {text}" in server.output

    def serves(source: str) -> bool:
        project.routines(source)
        return server.get() == 200

    try:
        server.process.wait_for("RoutineFailed: plant.seed: ValueError: no such brand")
        changed = failing.replace("brand", "colour")
        wait_until(lambda: fails_with("colour", changed), what=lambda: server.output)
        mended = failing.replace("raise ValueError", "str")
        wait_until(lambda: serves(mended), what=lambda: server.output)
    finally:
        server.end()
    assert project.effects() == ["seed"]
    states = [state for _, _, state in project.attempts()]
    assert states[-1] == "succeeded"
    assert set(states[:-1]) == {"failed"}
