"""The databases of the deployment files, by the names and roles that the files give them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from tests.deployments.containers import EXAMPLE, SECRET_KEY, Machine
from tests.project import Project, with_database
from tests.servers import embedded_postgresql

ROLE = DATABASE = "example"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a server of their own, for the names could be those of yours."""
    server = embedded_postgresql()
    with psycopg.connect(server.get_uri(), autocommit=True) as session:
        session.execute(f"CREATE ROLE {ROLE} SUPERUSER LOGIN PASSWORD '{ROLE}'")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def socket(server: str) -> str:
    """The directory of the server's socket."""
    return parse_qs(urlsplit(server).query)["host"][0]


@pytest.fixture(scope="session")
def deployed(server: str) -> str:
    """The name of a database to copy, in which the example's release is deployed."""
    name = "deployed"
    with psycopg.connect(server, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name} OWNER {ROLE}")
    subprocess.run(
        [sys.executable, "manage.py", "once", "run", "--migrate"],
        cwd=EXAMPLE,
        env={
            **os.environ,
            "DATABASE_URL": with_database(server, name),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "EXAMPLE_RELEASE": "1",
            "ONCE_RELEASE": "3",
            "SECRET_KEY": SECRET_KEY,
        },
        check=True,
    )
    return name


@pytest.fixture
def is_deployed() -> bool:
    """Whether an earlier deploy was there; override it to save the time of the example's work."""
    return False


@pytest.fixture
def project(
    server: str, is_deployed: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Project]:
    """A directory, and a database, which is empty on a first deploy."""
    template = request.getfixturevalue("deployed") if is_deployed else "template1"
    with psycopg.connect(server, autocommit=True) as session:
        session.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        session.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE} TEMPLATE {template}")
    url = with_database(server, DATABASE)
    project = Project(tmp_path / "project", url, url)
    yield project
    project.close()


@pytest.fixture
def machine(project: Project) -> Iterator[Machine]:
    machine = Machine(project)
    yield machine
    machine.close()
