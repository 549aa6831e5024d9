"""Counts the calls of bodies in a file, which no transaction takes back: the world outside."""

import os
from dataclasses import dataclass
from pathlib import Path

from once import Run

__all__ = ["Call", "calls", "note"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a body."""

    name: str
    attempt: int
    key: str
    pid: int


def note(name: str, run: Run) -> None:
    """Leave a line about a call that begins."""
    with (Path(os.environ["HANDSHAKE"]) / "calls").open("a") as lines:
        lines.write(f"{name} {run.attempt} {run.key} {os.getpid()}\n")


def calls(directory: Path, name: str) -> list[Call]:
    """The calls of a body in a project of that directory, in their order."""
    path = directory / "handshake" / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [
        Call(name, int(attempt), key, int(pid)) for name, attempt, key, pid in map(str.split, lines)
    ]
    return [call for call in found if call.name == name]
