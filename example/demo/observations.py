"""What the processes did, from the lines that they logged."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from example.demo.processes import Process

__all__ = ["Event", "applied_migrations", "by_process", "pids", "times", "wait"]

# Not from the beginning of a line: the command's progress may stand there.
_LINE = re.compile(r"(\d+\.\d{6}) (\d+) [\w.]+ event=(\w+)(.*)")
_ABOUT = re.compile(r" (?:routine|for)=(\S+)")
_SECONDS = re.compile(r" seconds=(\d+\.\d+)")
_APPLIED = re.compile(r"Applying (\S+)\.\.\. OK")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One log line."""

    at: float
    name: str
    #: What it is about, where it is about one.
    routine: str
    #: How long it took, where it says so.
    seconds: float


def by_process(children: Iterable[Process]) -> dict[int, list[Event]]:
    """The events of each process in the logs of some children, in order, by process id."""
    found: dict[int, list[Event]] = defaultdict(list)
    for child in children:
        for at, pid, name, rest in _LINE.findall(child.log()):
            about = _ABOUT.search(rest)
            lasted = _SECONDS.search(rest)
            event = Event(
                at=float(at),
                name=name,
                routine=about[1] if about else "",
                seconds=float(lasted[1]) if lasted else 0.0,
            )
            found[int(pid)].append(event)
    return found


def times(children: Iterable[Process], name: str) -> dict[int, float]:
    """When each process logged an event last, of those that did."""
    return {
        pid: event.at
        for pid, events in by_process(children).items()
        for event in events
        if event.name == name
    }


def pids(children: Iterable[Process], name: str, routine: str) -> list[int]:
    """Ids of the processes that logged an event about a routine."""
    return [
        pid
        for pid, events in by_process(children).items()
        if any(event.name == name and event.routine == routine for event in events)
    ]


def wait(events: Iterable[Event], routine: str) -> float | None:
    """For how long a process waited until another one had done a routine, if it did."""
    waits = [one.seconds for one in events if one.name == "waited" and one.routine == routine]
    return sum(waits) if waits else None


def applied_migrations(child: Process) -> list[str]:
    """The migrations that Django's ``migrate`` says it applied."""
    return _APPLIED.findall(child.log())
