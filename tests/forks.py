"""Processes of a project that start in milliseconds, forked from one that is ready."""

import json
import os
import signal
import sys
from pathlib import Path

from tests.project import Process, Project
from tests.waiting import PATIENCE, wait_until

__all__ = ["Fork", "Forks"]


class Fork(Process):
    """A process that is no child of the test."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self._code = log.with_suffix(".code")

    def finish(self, timeout: float = PATIENCE) -> int:
        wait_until(
            self._has_ended, timeout, lambda: f"the end of {self.pid}; output:\n{self.output}"
        )
        assert "ResourceWarning" not in self.output, self.output
        return int(self._code.read_text())

    def is_running(self) -> bool:
        return not self._has_ended()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        wait_until(self._is_zombie, what=f"the end of {self.pid}")

    def _is_zombie(self) -> bool:
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2]
        return state.split()[0] == "Z"

    def _has_ended(self) -> bool:
        return self._code.exists() and self._code.read_text().endswith("\n")


class Forks:
    """Where the processes of a project are forked, once its routines are written."""

    def __init__(self, project: Project) -> None:
        self._directory = project.directory / "forks"
        self._directory.mkdir()
        self._forker = project.start(sys.executable, "-m", "tests.shop.forks")
        self._forker.wait_for("ready")
        self._forks: list[Fork] = []

    def once(self, *arguments: str, hold: str = "") -> Fork:
        """Start ``manage.py once ...``, to hold at some places: see :mod:`tests.shop.steps`."""
        number = len(self._forks) + 1
        log = self._directory / f"{number}.log"
        log.touch()
        self._forker.tell(json.dumps([["once", *arguments], hold, str(log)]))
        self._forker.wait_for("forked", times=number)
        fork = Fork(int(self._forker.output.split()[-1]), log)
        self._forks.append(fork)
        return fork

    def close(self) -> None:
        """End what still runs."""
        for fork in self._forks:
            fork.kill()
