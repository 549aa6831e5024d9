"""What all acts share: where they take place, and how they wait."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from example.demo import observations
from example.demo.databases import Database
from example.demo.partner import Partner
from example.demo.processes import Process, Processes

__all__ = ["ENTRYPOINT", "ActFailed", "Stage"]

ENTRYPOINT = ("manage.py", "once", "run", "--migrate", "--json")
PATIENCE = 120.0


class ActFailed(Exception):
    """An act cannot go on; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One demonstration's database, processes and partner."""

    database: Database
    processes: Processes
    partner: Partner
    _begun: float = field(default_factory=time.monotonic)

    def begin(self, text: str) -> None:
        """Print what begins now, with the seconds since the first act."""
        self.say(f"[{time.monotonic() - self._begun:3.0f} s] {text} ...")

    def say(self, text: str) -> None:
        """Print a result."""
        print(text, flush=True)

    def await_condition(
        self, condition: Callable[[], bool], hope: str, children: Sequence[Process]
    ) -> None:
        """Wait for what children should bring about.

        Raises:
            ActFailed: a child ended before, or it takes too long.

        """
        deadline = time.monotonic() + PATIENCE
        while True:
            ended = [child for child in children if not child.is_alive]  # before the last look
            if condition():
                return
            if ended or time.monotonic() > deadline:
                raise _failure(hope, ended or children)
            time.sleep(0.05)

    def await_events(self, children: Sequence[Process], event: str, how_many: int) -> None:
        """Wait until that many processes, children or theirs, logged an event.

        Raises:
            ActFailed: a child ended before, or it takes too long.

        """
        self.await_condition(
            lambda: len(observations.times(children, event)) >= how_many,
            f"{how_many} processes should log event={event}",
            children,
        )

    def await_end(self, child: Process, returncode: int = 0) -> None:
        """Wait until a child has ended as it must.

        Raises:
            ActFailed: it does not, or with another exit code.

        """
        hope = f"it should end with exit code {returncode}"
        self.await_exit(child, hope)
        if child.returncode != returncode:
            raise _failure(hope, [child])

    def await_exit(self, child: Process, hope: str = "it should end") -> None:
        """Wait until a child has ended, with whatever exit code.

        Raises:
            ActFailed: it takes too long.

        """
        try:
            child.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise _failure(hope, [child]) from None


def _failure(hope: str, children: Sequence[Process]) -> ActFailed:
    """What to raise where children did not do what they should."""
    names = ", ".join(child.name for child in children)
    first = children[0]
    state = "is alive" if first.is_alive else f"ended with exit code {first.returncode}"
    return ActFailed(
        f"{names}: {hope}. {first.name.capitalize()} {state}; its log ends so:\n"
        f"{first.last_words()}"
    )
