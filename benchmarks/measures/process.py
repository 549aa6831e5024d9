"""Process: a whole ``manage.py`` with nothing to do for 10 routines, from its start to its end."""

from collections.abc import Iterator
from functools import partial

from benchmarks.contenders import Contender, contenders
from benchmarks.figures import Figure, Row
from benchmarks.project.work import truncate
from benchmarks.stage import Stage
from benchmarks.timing import interleaved, seconds

__all__ = ["figures"]

COUNT = 10


def figures(stage: Stage) -> Iterator[Figure]:
    """Seconds of the process; the floor is a command that sends one SELECT."""
    truncate()
    taking_part = contenders()
    cases = {each.name: partial(seconds, partial(_run, stage, each)) for each in taking_part}
    interleaved(cases, 1)  # does what there is to do, and writes bytecode
    row = Row(
        measure="process",
        title=f"whole `manage.py` process, nothing to do, {COUNT} routines",
        relation="difference",
    )
    for name, values in interleaved(cases, stage.times(21)).items():
        yield Figure(row=row, contender=name, values=values)


def _run(stage: Stage, contender: Contender) -> None:
    stage.run(
        *stage.manage(*contender.command),
        BENCHMARK_APPS=",".join(contender.apps),
        **contender.environment(COUNT),
    )
