"""Child processes that start together, log to files, and end with the demonstration."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from example.demo import interrupts

__all__ = ["Gate", "Process", "Processes"]

PROJECT = Path(__file__).resolve().parent.parent
GRACE = 3.0
# What steers the project, once and gunicorn comes from here, not from the user's shell.
STEERS = (
    *("DJANGO_", "ONCE_", "GUNICORN_", "WEB_CONCURRENCY", "PYTHONSAFEPATH"),
    *("ALLOWED_HOSTS", "DEBUG", "EXAMPLE_", "EXTRA_APPS", "PARTNER_URL", "SECRET_KEY"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Process:
    """A child, and what it writes."""

    name: str
    popen: "subprocess.Popen[bytes]"
    stdout: Path
    stderr: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit code, once it ended."""
        return self.popen.poll()

    @property
    def printed_at(self) -> float:
        """When it wrote to its standard output last."""
        return self.stdout.stat().st_mtime

    def terminate(self) -> None:
        """Ask it to end."""
        if self.is_alive:
            self.popen.terminate()

    def log(self) -> str:
        """What it logged so far."""
        return self.stderr.read_text(errors="replace")

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(f"    {line}" for line in self.log().strip().splitlines()[-15:])


class Gate:
    """A pipe that processes read from: they go on, all at once, when it is opened."""

    def __init__(self) -> None:
        self.entrance, self._bar = os.pipe()

    def open(self) -> float:
        """Let everybody go; the time."""
        os.close(self._bar)
        os.close(self.entrance)
        return time.time()


class Processes:
    """Children in the project's directory. Leaving the context ends them all."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.logs = logs
        clean = {name: value for name, value in os.environ.items() if not name.startswith(STEERS)}
        self.environment = {
            **clean,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "SECRET_KEY": secrets.token_hex(),
            "PYTHONUNBUFFERED": "1",  # printed_at is then when it was said
            "LOG_LEVEL": "DEBUG",  # short waits count, too
            **environment,
        }
        self.all: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with interrupts.postponed():
            self.stop()

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        gate: Gate | None = None,
    ) -> Process:
        """Start Python with these arguments; having loaded Django, it waits at the gate, if any."""
        environment = {**self.environment, **(environment or {})}
        if gate is not None:
            environment |= {
                "EXTRA_APPS": "demo.gate.GateConfig",
                "EXAMPLE_GATE": str(gate.entrance),
            }
            pass_fds = [*pass_fds, gate.entrance]
        stdout, stderr = (self.logs / f"{name}.{stream}" for stream in ("stdout", "stderr"))
        with stdout.open("ab") as out, stderr.open("ab") as err, interrupts.postponed():
            popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=pass_fds,
                start_new_session=True,  # Ctrl-C comes to this process, which ends the others
            )
            self.all.append(Process(name=name, popen=popen, stdout=stdout, stderr=stderr))
        return self.all[-1]

    def stop(self) -> None:
        """End every child: kindly, then, where that is not heeded, with its children by force."""
        for child in self.all:
            child.terminate()
        deadline = time.monotonic() + GRACE
        for child in self.all:
            with suppress(subprocess.TimeoutExpired):
                child.popen.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.popen.wait()
