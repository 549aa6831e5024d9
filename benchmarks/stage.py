"""A database of its own for one run, and the processes of the project on it."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.project import with_database

__all__ = ["ROOT", "Stage", "on_server"]

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where measures take place."""

    #: Of the database, which goes away with the run.
    url: str
    #: PostgreSQL's version.
    server: str
    #: How many rounds were asked for, if at all.
    rounds: int | None = None

    def times(self, usual: int) -> int:
        """How many rounds to measure, where a measure has its own usual number."""
        return self.rounds or usual

    def manage(self, *arguments: str) -> list[str]:
        """The command line of ``manage.py``."""
        return [sys.executable, "-m", "benchmarks.project.manage", *arguments]

    def environment(self, **further: str) -> dict[str, str]:
        """What processes of the project need."""
        return {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "",  # what is compiled anew each time is not comparable
            "DATABASE_URL": self.url,
            "DJANGO_SETTINGS_MODULE": "benchmarks.project.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            **further,
        }

    def run(self, *command: str, **further: str) -> str:
        """Run a program of the project to its end; what it printed."""
        done = subprocess.run(
            command,
            env=self.environment(**further),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} exited {done.returncode}: {done.stdout}")
        return done.stdout


@contextmanager
def on_server(url: str, rounds: int | None) -> Iterator[Stage]:
    """A stage on a new, migrated database of a PostgreSQL; no other database there is touched."""
    name = f"once_benchmarks_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as session:
        version = f"PostgreSQL {session.info.parameter_status('server_version')}"
        session.execute(f"CREATE DATABASE {name}")
    try:
        stage = Stage(url=with_database(url, name), server=version, rounds=rounds)
        stage.run(*stage.manage("migrate", "--verbosity=0"))
        yield stage
    finally:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
