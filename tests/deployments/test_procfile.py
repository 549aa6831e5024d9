"""The Procfile's lines work, as Heroku and its like run them."""

import re

import pytest

from tests.deployments.containers import (
    EXAMPLE,
    HELD,
    SECRET_KEY,
    Container,
    Machine,
    Running,
)
from tests.deployments.kubernetes import get
from tests.project import Project
from tests.servers import free_port
from tests.waiting import wait_until

LINES = dict(re.findall(r"^(\w+): (.*)$", (EXAMPLE / "Procfile").read_text(), re.MULTILINE))


def dyno(machine: Machine, url: str, kind: str) -> Running:
    """Start a process of the Procfile."""
    port = free_port()
    return machine.start(
        Container(
            name=kind,
            command=["sh", "-c", LINES[kind]],
            environment={
                "DATABASE_URL": url,
                "PORT": str(port),
                "SECRET_KEY": SECRET_KEY,
                "HEROKU_BUILD_COMMIT": "2c3a0b24",
            },
            addresses={"0.0.0.0": "127.0.0.1"} if "0.0.0.0" in LINES[kind] else {},
            port=port,
        )
    )


def test_release_phase_comes_before_the_servers(machine: Machine, project: Project) -> None:
    assert set(LINES) == {"release", "web"}
    web = dyno(machine, project.url, "web")

    def ready() -> int:
        return get(web.container.port, "/ready/", "localhost", 10)

    wait_until(lambda: ready() == 503, what=lambda: web.output)
    release = dyno(machine, project.url, "release")
    assert release.finish() == 0, release.output
    assert ready() == 200
    assert project.rows("SELECT DISTINCT release FROM once_attempt") == [("2c3a0b24",)]
    web.ask_to_end()
    assert web.end() == 0, web.output


@pytest.mark.parametrize("is_deployed", [True], ids=["deployed"])
def test_release_fails_where_a_routine_fails(machine: Machine, project: Project) -> None:
    machine.plant(HELD)
    assert dyno(machine, project.url, "release").finish() == 1
