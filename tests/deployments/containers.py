"""Runs what a deployment file says of a container, as a process of this machine.

Nothing of a file is changed but addresses: other hosts and ports for those that only exist in a
cluster. What should be replaced and is not there is an error, so that no address is made up here.
"""

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.project import ROOT, Process, Project

__all__ = [
    *("EXAMPLE", "HELD", "HOLDING", "SECRET_KEY", "Container", "Image", "Machine", "Running"),
    "check_deploy",
    "documents",
]

EXAMPLE = ROOT / "example"
#: As long as Django wants it.
SECRET_KEY = secrets.token_hex()

#: An app of the test, whose routine ends when the test says so.
HOLDING = """
from once import routine
from tests.shop.handshake import hold

@routine
def held_up():
    hold("body")
"""
#: One that is held for a person's decision, once it failed.
HELD = """
from once import routine

@routine(atomic=False, retry=False)
def pay():
    raise ValueError("refused")
"""


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def check_deploy(environment: Mapping[str, str]) -> None:
    """Have Django check the settings that a container gets; a warning is an error."""
    arguments = ["check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=EXAMPLE,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True, kw_only=True)
class Container:
    """What a file says of a container."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    #: Seconds from the request to end until SIGKILL.
    grace: float = 30.0
    #: What to say instead of an address, in command, environment and health checks.
    addresses: Mapping[str, str]
    #: On this machine, that which it listens on.
    port: int = 0
    is_read_only: bool = False


class Image:
    """What a Dockerfile says of the image that is built from it."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.command: list[str] = json.loads(self._last("CMD"))
        self.user = self._last("USER")
        self.environment = dict(re.findall(r"^ENV (\w+)=(\S+)$", self.text, re.MULTILINE))

    def _last(self, instruction: str) -> str:
        found: list[str] = re.findall(rf"^{instruction} (.*)$", self.text, re.MULTILINE)
        return found[-1]


class Running:
    """A container that was started."""

    def __init__(self, container: Container, process: Process, environment: dict[str, str]) -> None:
        self.container = container
        self.process = process
        self._environment = environment
        self._asked_at = 0.0

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self.process.output

    def execute(self, command: Sequence[str], timeout: float) -> bool:
        """Whether a command succeeds inside of the container."""
        localized = [_localized(part, self.container.addresses) for part in command]
        try:
            done = subprocess.run(
                localized, cwd=EXAMPLE, env=self._environment, capture_output=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return False
        assert done.returncode not in (126, 127), f"{shlex.join(command)}: {done.stderr!r}"
        return done.returncode == 0

    def finish(self) -> int:
        """Wait for its end; its exit code, as platforms count it."""
        code = self.process.finish(120)
        return 128 - code if code < 0 else code

    def ask_to_end(self) -> None:
        """Do as platforms do: SIGTERM to the container's first process, and to no other."""
        self._asked_at = time.monotonic()
        self.process.send(signal.SIGTERM)

    def end(self, notice: float = 0.0) -> int:
        """The exit code after it was asked to end. It must not outlast its grace period.

        Args:
            notice: seconds of the grace period that passed before it was asked.

        """
        code = self.finish()
        needed = time.monotonic() - self._asked_at + notice
        assert needed < self.container.grace, f"{self.container.name} needed {needed:.1f} s"
        return code

    def kill(self) -> None:
        """SIGKILL it and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()


class Machine:
    """Starts containers of the example's image, and ends them with the test."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._running: list[Running] = []
        #: In all containers: the example's first release has less to do than the others.
        self.extra = {"EXAMPLE_RELEASE": "1"}

    def plant(self, source: str) -> None:
        """Add an app with these routines to the example, behind its own."""
        (self._project.directory / "plant" / "routines.py").write_text(source)
        self.extra["EXTRA_APPS"] = "plant"

    def start(self, container: Container) -> Running:
        """Start a container."""
        missing = [
            address
            for address in container.addresses
            if address not in " ".join([*container.command, *container.environment.values()])
        ]
        assert not missing, f"{container.name}: no {missing} in its command or environment"
        number = len(self._running)
        scratch = self._project.directory / f"tmp-{number}"
        scratch.mkdir()
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(self._project.directory), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HANDSHAKE": str(self._project.directory / "handshake"),
            "TMPDIR": str(scratch),
            # Nobody can write to the first, as on a read-only root file system.
            "HOME": "/proc" if container.is_read_only else str(scratch),
            **self.extra,
            **{
                name: _localized(value, container.addresses)
                for name, value in container.environment.items()
            },
        }
        # setsid replaces itself by the command: the group's number is that of the process.
        command = ["setsid", *(_localized(part, container.addresses) for part in container.command)]
        log = self._project.directory / f"{container.name}-{number}.log"
        process = Process(command, environment, log, EXAMPLE)
        self._running.append(Running(container, process, environment))
        return self._running[-1]

    def close(self) -> None:
        """End everything that was started."""
        for running in self._running:
            running.kill()


def _localized(text: str, addresses: Mapping[str, str]) -> str:
    for address, replacement in addresses.items():
        text = text.replace(address, replacement)
    return text
