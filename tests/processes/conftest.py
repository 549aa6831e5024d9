"""Fixtures of tests that start servers."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.processes.http import Serve, Server
from tests.project import Project
from tests.servers import PgBouncer, database_url, free_port


class Pooler:
    """A PgBouncer on a port of its own, by which a database can be out of reach."""

    def __init__(self, directory: Path, project: Project) -> None:
        self._directory = directory
        self._port = free_port()
        self._running: PgBouncer | None = None
        self._starts = 0
        parts = urlsplit(project.url)
        self.environment = {
            "DATABASE_URL": f"postgresql://{parts.username}:any@127.0.0.1:{self._port}{parts.path}",
            "ONCE_STARTUP_TIMEOUT": "0.5",
        }

    def start(self) -> None:
        self._starts += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.servers.free_port", lambda: self._port)
            directory = self._directory / f"pooler-{self._starts}"
            self._running = PgBouncer(directory, database_url(), 5)

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None


@pytest.fixture
def serve(project: Project) -> Iterator[Serve]:
    """Starts servers of the project and ends them with the test."""
    servers: list[Server] = []

    def start(kind: str, *options: str, **environment: str) -> Server:
        servers.append(Server(project, kind, *options, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def pooler(project: Project, tmp_path: Path) -> Iterator[Pooler]:
    pooler = Pooler(tmp_path, project)
    yield pooler
    pooler.stop()
