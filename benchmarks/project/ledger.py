"""What long bodies did, and when, in a file that no transaction takes back: the world outside."""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import environ

__all__ = ["Call", "calls", "end", "is_open", "last", "open_in", "overlap"]

env = environ.Env()

_directories: list[Path] = []
#: Seconds between two signs of life.
BEAT: float = env.float("BENCHMARK_BEAT", default=0.05)


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of a body. Times are those of ``time.time()``."""

    pid: int
    begun: float
    #: When it gave a sign of life.
    signs: list[float] = field(default_factory=list)
    #: When it came to its end, where it did.
    ended: float | None = None


def open_in(directory: Path) -> None:
    """Have the bodies of this process be long from now on, and leave their signs there."""
    _directories[:] = [directory]


def is_open() -> bool:
    """Whether bodies are long."""
    return bool(_directories)


def last(work: Callable[[], object]) -> None:
    """Work again and again, each time followed by a sign of life, until :func:`end` is called."""
    [directory] = _directories
    with (directory / "ledger").open("a", buffering=1) as lines:
        kind = "begun"
        while not (directory / "end").exists():
            lines.write(f"{os.getpid()} {kind} {time.time()}\n")
            time.sleep(BEAT)
            work()
            kind = "alive"
        lines.write(f"{os.getpid()} ended {time.time()}\n")


def end(directory: Path) -> None:
    """Have the bodies come to their end."""
    (directory / "end").touch()


def calls(directory: Path) -> list[Call]:
    """The calls of bodies so far, in the order in which they began."""
    path = directory / "ledger"
    found: list[Call] = []
    current: dict[int, Call] = {}
    whole, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
    for line in whole.splitlines():  # the last one may be half-written
        pid, kind, at = line.split()
        if kind == "begun":
            found.append(Call(pid=int(pid), begun=float(at)))
            current[int(pid)] = found[-1]
        elif kind == "alive":
            current[int(pid)].signs.append(float(at))
        elif int(pid) in current:
            current[int(pid)].ended = float(at)
    return found


def overlap(found: Sequence[Call]) -> float:
    """For how many seconds more than one of the calls gave signs of life."""
    span = 2 * BEAT
    alive = Counter(moment for call in found for moment in {int(at / span) for at in call.signs})
    return span * sum(count > 1 for count in alive.values())
