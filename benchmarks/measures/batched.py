"""Batched: a million rows changed by 1,000, beside a loop by hand of the same transactions.

Time in this process; memory in processes of their own, for 100,000 rows and for a million. A single
round has a tenth of each.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.figures import Figure, Row
from benchmarks.project.batches import BATCH_SIZE, WAYS, fill, left
from benchmarks.stage import Stage
from benchmarks.timing import interleaved, seconds
from benchmarks.wire import count

__all__ = ["figures"]

ROWS = 1_000_000


def figures(stage: Stage) -> Iterator[Figure]:
    """Seconds, then MiB."""
    most = ROWS // 10 if stage.rounds == 1 else ROWS
    timed = {name: partial(_through, most, partial(seconds, way)) for name, way in WAYS.items()}
    interleaved(timed, 1)  # what happens at a first call only
    row = Row(measure="batched", title=f"{most:,} rows in batches of {BATCH_SIZE:,}")
    for name, values in interleaved(timed, stage.times(7)).items():
        fill(most)
        counts = count(stage.url, WAYS[name])
        yield Figure(row=row, contender=name, values=values, counts=counts)
    for rows in (most // 10, most):
        row = Row(
            measure="batched",
            title=f"peak memory of a process that goes through {rows:,} rows",
            unit="MiB",
            relation="-",
        )
        sized = {name: partial(_through, rows, partial(_peak, stage, name)) for name in WAYS}
        for name, values in interleaved(sized, stage.times(3)).items():
            yield Figure(row=row, contender=name, values=values)


def _through(rows: int, measured: Callable[[], float]) -> float:
    """Measure one way through that many new rows, and see that it changed each once."""
    fill(rows)
    found = measured()
    if wrong := left():
        raise RuntimeError(f"{wrong} of {rows} rows were not changed exactly once")
    return found


def _peak(stage: Stage, name: str) -> float:
    printed = stage.run(
        sys.executable, "-m", "benchmarks.project.batches", name, BENCHMARK_APPS="once"
    )
    return int(printed) / 2**20
