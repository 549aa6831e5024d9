"""What all acts share: where they take place, and how they wait."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

    def say(self, text: str) -> None:
        """Tell who watches."""
        print(text, flush=True)

    def await_events(self, children: Sequence[Process], event: str, how_many: int) -> None:
        """Wait until that many processes, children of these, logged an event.

        Raises:
            ActFailed: a child ended before, or it takes too long.

        """
        self.await_condition(
            lambda: len(observations.times(children, event)) >= how_many,
            f"{how_many} processes should have logged event={event}",
            children,
        )

    def await_end(self, children: Sequence[Process], returncode: int = 0) -> None:
        """Wait until processes have ended as they must.

        Raises:
            ActFailed: they do not, or with another exit code.

        """
        hope = f"they should have ended with exit code {returncode}"
        self._wait(lambda: not any(child.is_alive for child in children), hope, children)
        if broken := [child for child in children if child.returncode != returncode]:
            raise failure(hope, broken)

    def await_condition(
        self, condition: Callable[[], bool], hope: str, children: Sequence[Process]
    ) -> None:
        """Wait for what the children should bring about.

        Raises:
            ActFailed: a child ended before, or it takes too long.

        """

        def is_decided() -> bool:
            return condition() or not all(child.is_alive for child in children)

        self._wait(is_decided, hope, children)
        if not condition():
            raise failure(hope, [child for child in children if not child.is_alive])

    def _wait(self, condition: Callable[[], bool], hope: str, children: Sequence[Process]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise failure(f"{hope}, within {PATIENCE:.0f} s", children)
            time.sleep(0.05)


def failure(hope: str, children: Sequence[Process]) -> ActFailed:
    """What to raise where children did not do what they should."""
    names = ", ".join(f"{child.name} (exit code {child.returncode})" for child in children)
    return ActFailed(
        f"{names}: {hope}. The log of {children[0].name} ends so:\n{children[0].last_words()}"
    )
