"""Fixtures of tests that start servers."""

from collections.abc import Iterator

import pytest

from tests.processes.http import Serve, Server
from tests.project import Project


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
