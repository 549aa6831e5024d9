"""Nothing to do: all routines are done, in a process whose connection is open.

This is what every start of every process costs, for ever.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks.contenders import contenders
from benchmarks.figures import Figure, Row
from benchmarks.project.work import truncate
from benchmarks.stage import Stage
from benchmarks.timing import interleaved, seconds
from benchmarks.wire import count

__all__ = ["figures"]

#: Numbers of routines, each with the usual number of rounds.
SIZES = {1: 60, 10: 60, 100: 40, 1000: 12}


def figures(stage: Stage) -> Iterator[Figure]:
    """Time, and what the server was asked, by the number of routines."""
    for size, rounds in SIZES.items():
        truncate()
        taking_part = contenders()
        for contender in taking_part:
            contender.prepare(size)
            contender.run()
        cases = {each.name: partial(seconds, each.run) for each in taking_part}
        interleaved(cases, 1)  # what happens at a first call only
        found = interleaved(cases, stage.times(rounds))
        routines = "1 routine" if size == 1 else f"{size:,} routines"
        row = Row(measure="nothing", title=f"nothing to do, {routines}, in process")
        for each in taking_part:
            yield Figure(
                row=row,
                contender=each.name,
                values=found[each.name],
                counts=count(stage.url, each.run),
            )
