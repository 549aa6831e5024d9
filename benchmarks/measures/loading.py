"""Loading: an app's own share of ``django.setup()``, which every process of a project pays.

Fresh processes with and without it in INSTALLED_APPS take turns. ``-X importtime`` would miss what
Django loads by name, and what ``ready()`` does.
"""

import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.contenders import contenders
from benchmarks.figures import Figure, Row
from benchmarks.stage import Stage
from benchmarks.timing import interleaved

__all__ = ["figures"]


def figures(stage: Stage) -> Iterator[Figure]:
    """Seconds of CPU time; the floor is a project without any of the apps."""
    apps = {each.name: ",".join(each.apps) for each in contenders()}
    cases = {each: partial(_load, stage, each) for each in sorted(set(apps.values()))}
    interleaved(cases, 1)  # writes bytecode
    found = interleaved(cases, stage.times(41))
    row = Row(
        measure="loading", title="the app's own share of `django.setup()`", relation="difference"
    )
    for name, each in apps.items():
        yield Figure(row=row, contender=name, values=found[each])


def _load(stage: Stage, apps: str) -> float:
    return float(stage.run(sys.executable, "-m", "benchmarks.project.loading", BENCHMARK_APPS=apps))
