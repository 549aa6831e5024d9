"""What is measured: one module for each measure, with a function ``figures``."""

from collections.abc import Iterator
from importlib import import_module

from benchmarks.figures import Figure
from benchmarks.stage import Stage

__all__ = ["NAMES", "measure"]

#: In the order of the table.
NAMES = (
    "nothing",
    "loading",
    "process",
    "migrations",
    "running",
    "parts",
    "batched",
    "herd",
    "takeover",
    "locks",
    "waiters",
    "throttled",
)


def measure(name: str, stage: Stage) -> Iterator[Figure]:
    """The figures of one measure, as they are taken. Django must be set up."""
    figures: Iterator[Figure] = import_module(f"{__name__}.{name}").figures(stage)
    yield from figures
