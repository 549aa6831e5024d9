"""A server of their own for tests that stop it, crash it or change its configuration."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.support import Server
from tests.project import Project, with_database


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that these tests share, with a migrated database to copy."""
    server = Server()
    server.execute("CREATE DATABASE once_migrated")
    url = with_database(server.url, "once_migrated")
    project = Project(tmp_path_factory.mktemp("migrated"), url, url)
    assert project.manage("migrate", "-v0").finish() == 0
    project.close()
    yield server
    server.end()


@pytest.fixture
def own_project(server: Server, tmp_path: Path) -> Iterator[Project]:
    """A project on that server, which is as it was before when the test ends."""
    server.execute("CREATE DATABASE once_project TEMPLATE once_migrated")
    url = with_database(server.url, "once_project")
    project = Project(tmp_path / "project", url, url)
    yield project
    project.close()
    server.restore()
    server.execute("DROP DATABASE once_project WITH (FORCE)")
