"""The routines as ``once`` finds them."""

from benchmarks.project import work
from once import Routine, routine

__all__ = ["declared"]


def _declare(name: str) -> Routine:
    @routine(name=name)
    def body() -> None:
        work.effect(name)

    return body


declared = [_declare(name) for name in work.names(work.COUNT)]
