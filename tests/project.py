"""A Django project on a fresh database, for tests that start real processes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tests.servers import query_mysql
from tests.waiting import PATIENCE, wait_until
from tests.zygote import is_forkable, zygote

__all__ = ["IN_PROCESSES", "LIVENESS", "Forked", "Process", "Project", "with_database"]

#: ``ONCE_LIVENESS_TIMEOUT`` of its processes, in seconds.
LIVENESS = 2.0

#: Of a pytest in several processes, which may end before a process of its own does.
IN_PROCESSES = {"PYTHONWARNINGS": "ignore:subprocess:ResourceWarning"}

ROOT = Path(__file__).parent.parent
APPS = ("django.contrib.contenttypes", "django.contrib.auth", "once", "tests.shop", "plant")


def with_database(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


class Process:
    """A process that a test started."""

    def __init__(
        self, command: list[str], environment: dict[str, str], log: Path, cwd: Path = ROOT
    ) -> None:
        self.log = log
        with log.open("w") as out:
            self._popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.pid = self._popen.pid

    @property
    def output(self) -> str:
        """What it printed so far, to stdout and stderr."""
        return self.log.read_text()

    def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def wait_for(self, text: str, times: int = 1, timeout: float = PATIENCE) -> None:
        """Wait until it has printed a text."""
        wait_until(
            lambda: self.output.count(text) >= times,
            timeout,
            lambda: f"{text!r} in the output:\n{self.output}",
        )

    def finish(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; its exit code. It must have left nothing open behind."""
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {timeout} s: {self.output}") from None
        assert "ResourceWarning" not in self.output, self.output
        return code

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it, frozen or not, and reap it."""
        self._popen.kill()
        self._popen.wait()
        if self._popen.stdin is not None:
            self._popen.stdin.close()


class Forked(Process):
    """A ``manage.py`` that was forked: no child of this process."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        log: Path,
        errors: Path | None = None,
    ) -> None:
        self.log = log
        log.touch()
        self._code = log.with_suffix(".code")
        self.pid = zygote().start(arguments, environment, log, errors)

    def finish(self, timeout: float = PATIENCE) -> int:
        try:
            wait_until(lambda: not self.is_running(), timeout)
        except TimeoutError:
            raise TimeoutError(f"still running after {timeout} s: {self.output}") from None
        assert "ResourceWarning" not in self.output, self.output
        return int(self._code.read_text())

    def is_running(self) -> bool:
        return not (self._code.exists() and self._code.read_text().endswith("\n"))

    def send(self, number: signal.Signals) -> None:
        if self.is_running():  # else its number may be that of another process by now
            with suppress(ProcessLookupError):  # it has ended
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        wait_until(lambda: not self.is_running(), what=f"the end of {self.pid}")


class Project:
    """The test project in a directory of its own: ``plant/routines.py`` is what the test writes."""

    def __init__(self, directory: Path, url: str, admin_url: str) -> None:
        self.directory = directory
        #: Where its processes connect to.
        self.url = url
        #: Where the test looks from: the same database without a pooler between.
        self.admin_url = admin_url
        self.environment = {
            **os.environ,
            "DATABASE_URL": url,
            "TEST_SQLITE": f"sqlite:///{directory}/second.sqlite3",
            "TEST_APPS": ",".join(APPS),
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "HANDSHAKE": str(directory / "handshake"),
            "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
            "PYTHONDEVMODE": "1",
            "PYTHONMALLOC": "pymalloc",  # its debug allocator takes longer than most tests
            "ONCE_LIVENESS_TIMEOUT": f"{LIVENESS:g}",
        }
        (directory / "handshake").mkdir(parents=True)
        (directory / "plant").mkdir()
        (directory / "plant" / "__init__.py").touch()
        self._processes: list[Process] = []

    @property
    def is_sqlite(self) -> bool:
        """Whether its database is a file."""
        return self.admin_url.startswith("sqlite")

    @property
    def is_mysql(self) -> bool:
        """Whether its database is on a MariaDB."""
        return self.admin_url.startswith("mysql")

    def routines(self, source: str) -> None:
        """Write ``plant/routines.py``, with the usual names imported."""
        prelude = """\
            import os, sys, time
            from django.db import connection, connections, transaction
            from once import routine
            from tests.shop import steps
            from tests.shop.handshake import hold, reach
            from tests.shop.models import Effect


            def effect(name):
                Effect.objects.create(name=name)
            """
        text = textwrap.dedent(prelude) + "\n\n" + textwrap.dedent(source)
        (self.directory / "plant" / "routines.py").write_text(text)

    def settings(self, source: str) -> None:
        """Write further settings, with ``default`` and its ``options`` at hand."""
        prelude = (
            "from tests.settings import *\n"
            "default = DATABASES['default']\n"
            "options = default.setdefault('OPTIONS', {})\n"
        )
        (self.directory / "plant" / "settings.py").write_text(prelude + source)
        self.environment["DJANGO_SETTINGS_MODULE"] = "plant.settings"

    def start(self, *command: str, **environment: str) -> Process:
        """Start a program of this project."""
        log = self.directory / f"{len(self._processes)}.log"
        process = Process([*command], {**self.environment, **environment}, log)
        self._processes.append(process)
        return process

    def once(self, *arguments: str, **environment: str) -> Process:
        """Start ``manage.py once ...``."""
        return self.manage("once", *arguments, **environment)

    def manage(self, *arguments: str, **environment: str) -> Process:
        """Start ``manage.py ...``."""
        log = self.directory / f"{len(self._processes)}.log"
        whole = {**self.environment, **environment}
        if is_forkable([*arguments], whole):
            self._processes.append(Forked([*arguments], whole, log))
            return self._processes[-1]
        return self.start(sys.executable, "-m", "tests.manage", *arguments, **environment)

    def server(self, code: str = "pass", **environment: str) -> Process:
        """Start a process that starts as a server does, and then calls some code and ends."""
        environment = {"ONCE_STARTUP_COMMANDS": "shell", **environment}
        return self.manage("shell", "-v0", "-c", code, **environment)

    def reached(self, point: str) -> list[int]:
        """The processes that came to a point of the handshake."""
        files = (self.directory / "handshake").glob(f"{point}.*")
        return sorted(int(file.suffix[1:]) for file in files if file.suffix != ".go")

    def wait_for(self, point: str, processes: int = 1, timeout: float = PATIENCE) -> float:
        """Wait until that many processes came to a point; the seconds it took."""
        return wait_until(
            lambda: len(self.reached(point)) >= processes,
            timeout,
            lambda: f"{point}; output:\n" + "\n".join(p.output for p in self._processes),
        )

    def release(self, point: str) -> None:
        """Let go on who holds at a point."""
        (self.directory / "handshake" / f"{point}.go").touch()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What another connection sees."""
        if self.is_mysql:
            return query_mysql(self.admin_url, sql)
        if self.is_sqlite:
            connection = sqlite3.connect(urlsplit(self.admin_url).path, timeout=30)
            try:
                return connection.execute(sql).fetchall()
            finally:
                connection.close()
        with psycopg.connect(self.admin_url, autocommit=True) as session:
            return session.execute(sql).fetchall()

    def execute(self, sql: str) -> None:
        """What another connection does."""
        if self.is_sqlite:
            with closing(sqlite3.connect(urlsplit(self.admin_url).path, timeout=30)) as connection:
                connection.execute(sql)
                connection.commit()
        elif self.is_mysql:
            query_mysql(self.admin_url, sql)
        else:
            with psycopg.connect(self.admin_url, autocommit=True) as session:
                session.execute(sql)

    def effects(self) -> list[str]:
        """Names of the effects that are committed."""
        return [name for (name,) in self.rows("SELECT name FROM shop_effect ORDER BY name")]

    def attempts(self) -> list[tuple[str, int, str]]:
        """Routine, number and state of every attempt."""
        return self.rows("SELECT routine, number, state FROM once_attempt ORDER BY routine, number")

    def completions(self) -> list[str]:
        """Routines with a completion, in alphabetical order."""
        return [
            name
            for (name,) in self.rows(
                "SELECT routine FROM once_completion WHERE routine NOT LIKE 'once.%' "
                "ORDER BY routine"
            )
        ]

    def status(self) -> dict[str, Any]:
        """What ``once status --json`` prints, the routines by name."""
        process = self.once("status", "--json")
        assert process.finish() == 0, process.output
        text = process.output
        shown: dict[str, Any] = json.loads(text[text.index("{") :])
        return {routine["name"]: routine for routine in shown["routines"]}

    def named(self, holder: Process) -> str:
        """How others call a process that holds a lock: MySQL knows no more than its session."""
        return "(session " if self.is_mysql else f"pid {holder.pid}"

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.kill()
