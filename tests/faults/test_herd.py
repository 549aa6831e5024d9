"""Ten times as many processes as the server has connections."""

import fcntl
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.support import Server
from tests.project import Project
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(databases=[])

PROCESSES, CONNECTIONS = 200, 20


@pytest.fixture
def _few_connections(server: Server, own_project: Project) -> Iterator[None]:
    server.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}")
    server.restart()
    yield
    server.execute("ALTER SYSTEM RESET max_connections")
    server.restart()


@pytest.mark.alone
@pytest.mark.usefixtures("_few_connections")
def test_two_hundred_processes_on_twenty_connections(
    own_project: Project, record_property: Any
) -> None:
    own_project.routines(
        """
        @routine
        def seed():
            effect("seed")
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(3)")
        """
    )
    barrier = own_project.directory / "barrier"
    with barrier.open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fleet = own_project.start(
            *(sys.executable, "-m", "tests.shop.fleet", str(PROCESSES), str(barrier)),
            # A loaded machine takes longer than the usual patience to refuse so many.
            ONCE_STARTUP_TIMEOUT=f"{PATIENCE:g}",
        )
        fleet.wait_for("ready")
    assert fleet.finish() == 0, fleet.output
    answers = [json.loads(line) for line in fleet.output.splitlines() if line.startswith("{")]
    assert [answer["code"] for answer in answers] == [0] * PROCESSES, fleet.output
    assert own_project.effects() == ["seed"]
    assert own_project.attempts() == [("plant.seed", 1, "succeeded")]
    ended = "SELECT extract(epoch FROM finished_at)::float FROM once_attempt"
    [(end,)] = own_project.rows(ended)
    last = max(answer["at"] for answer in answers) - end
    record_property("seconds from the end of the run to the last process", round(last, 2))
    print(f"last ready {last:.2f} s after the end of the run")
    assert last < PATIENCE / 2
