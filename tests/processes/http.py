"""Servers of a project, each on a port of its own."""

import http.client
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.project import Process, Project
from tests.servers import free_port
from tests.waiting import PATIENCE, wait_until

__all__ = ["Serve", "Server"]

COMMANDS = {
    "gunicorn": "gunicorn tests.wsgi --no-control-socket --workers 2 --bind {address}",
    "preload": "gunicorn tests.wsgi --no-control-socket --workers 2 --bind {address} --preload",
    "uvicorn": "uvicorn tests.asgi:application --host {host} --port {port}",
    # The supervisor's children import the application inside their event loops.
    "uvicorn-workers": "uvicorn tests.asgi:application --host {host} --port {port} --workers 2",
    "runserver": "tests.manage runserver {address}",
    "runserver-noreload": "tests.manage runserver {address} --noreload",
}


class Server:
    """A web server: a process that leads a group, so that its workers end with it.

    Args:
        project: what it serves.
        kind: a key of ``COMMANDS``, or a command: of a Python module, or ``uwsgi``.
        options: further arguments.
        environment: of the process, besides that of the project.

    """

    def __init__(self, project: Project, kind: str, *options: str, **environment: str) -> None:
        self.port = free_port()
        names = {
            "address": f"127.0.0.1:{self.port}",
            "host": "127.0.0.1",
            "port": self.port,
            "directory": project.directory,
        }
        command = COMMANDS.get(kind, kind)
        module, *arguments = [part.format(**names) for part in command.split()]
        program = [sys.executable, "-m", module]
        if module == "uwsgi":  # a program of its own, in the environment of this interpreter
            program = [str(Path(sys.executable).parent / module), "--virtualenv", sys.prefix]
        # Servers leave sockets to the garbage collector, which the development mode reports.
        environment = {"PYTHONDEVMODE": "", **environment}
        # setsid replaces itself by the command: the group's number is that of the process.
        self.process: Process = project.start(
            "setsid", *program, *arguments, *options, **environment
        )
        self.pid = self.process.pid

    @property
    def output(self) -> str:
        """What it and its workers printed so far."""
        return self.process.output

    def get(self, path: str = "/ready/") -> int:
        """The status of the answer; 0 where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def wait_for(self, status: int, path: str = "/ready/") -> None:
        """Wait until it answers with this status."""

        def answers() -> bool:
            assert self.process.is_running(), self.output
            return self.get(path) == status

        wait_until(answers, what=lambda: f"{status} from {path}: {self.output}")

    @property
    def workers(self) -> list[int]:
        """The ids of its workers, the newest last: not Python's own helpers, and no zombies."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        found = []
        for child in children:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                command = Path(f"/proc/{child}/cmdline").read_text()
                if command and "resource_tracker" not in command:
                    found.append(int(child))
        return found

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, once it handles that: its first worker may work before it does."""
        wait_until(lambda: handles(self.pid, number), what=lambda: f"a handler: {self.output}")
        os.kill(self.pid, number)

    def send_to_all(self, number: signal.Signals, workers: int = 0) -> None:
        """Send it and its workers a signal, once that many workers of gunicorn would heed it.

        Until then a worker has the handlers of its master, that of SIGHUP among them, and loses
        what it is sent.
        """

        def are_started() -> bool:
            listening = [each for each in self.workers if not handles(each, signal.SIGHUP)]
            return handles(self.pid, number) and len(listening) >= workers

        wait_until(are_started, what=lambda: f"handlers of signals: {self.output}")
        os.killpg(self.pid, number)

    def stop(self, timeout: float = PATIENCE) -> int:
        """Ask it to end, and wait; its exit code.

        A worker of gunicorn that is asked before it listens to signals ends after 30 s only.
        """
        self.process.send(signal.SIGTERM)
        return self.process.finish(timeout)

    def end(self) -> None:
        """SIGKILL it and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()


def handles(process: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


#: Starts a server of a kind, with options and an environment.
Serve = Callable[..., Server]
