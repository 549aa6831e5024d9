"""Running: 100 routines whose body is one INSERT, by the only process there is.

Nobody competes for the locks; what a routine costs is its round trips.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from benchmarks.contenders import Contender, contenders
from benchmarks.figures import Figure, Row
from benchmarks.project.work import effects, truncate
from benchmarks.stage import Stage
from benchmarks.timing import interleaved, seconds
from benchmarks.wire import count

__all__ = ["figures"]

T = TypeVar("T")

COUNT = 100


def figures(stage: Stage) -> Iterator[Figure]:
    """Time for all of them, and what the server was asked."""
    taking_part = contenders()
    for contender in taking_part:
        contender.prepare(COUNT)
    cases = {each.name: partial(_anew, each, seconds) for each in taking_part}
    interleaved(cases, 1)  # what happens at a first call only
    found = interleaved(cases, stage.times(9))
    row = Row(measure="running", title=f"{COUNT} routines run, body is one INSERT")
    for each in taking_part:
        counts = _anew(each, partial(count, stage.url))
        yield Figure(row=row, contender=each.name, values=found[each.name], counts=counts)


def _anew(contender: Contender, measured: Callable[[Callable[[], None]], T]) -> T:
    """Measure one call that finds nothing done, and see that it did everything."""
    truncate()
    found = measured(contender.run)
    if (left := effects()) != COUNT:
        raise RuntimeError(f"{contender.name} left {left} effects, not {COUNT}")
    return found
