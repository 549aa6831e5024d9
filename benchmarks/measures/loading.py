"""Loading: an app's own share of ``django.setup()``, which every process of a project pays.

Fresh processes with and without it in INSTALLED_APPS take turns. ``-X importtime`` would miss what
Django loads by name, and what ``ready()`` does.
"""

import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.contenders import contenders
from benchmarks.figures import FLOOR, Figure, Row
from benchmarks.stage import Stage
from benchmarks.timing import interleaved

__all__ = ["figures"]


def figures(stage: Stage) -> Iterator[Figure]:
    """Seconds of ``django.setup()``; the floor is a project without any of the apps."""
    apps = {each.name: each.apps for each in contenders(["pglock", "post_deploy", "once"])}
    cases = {
        name: partial(_load, stage, ",".join(installed))
        for name, installed in {FLOOR: (), **apps}.items()
    }
    interleaved(cases, 1)  # writes bytecode
    row = Row(
        measure="loading", title="the app's own share of `django.setup()`", relation="difference"
    )
    for name, values in interleaved(cases, stage.times(41)).items():
        yield Figure(row=row, contender=name, values=values)


def _load(stage: Stage, apps: str) -> float:
    return float(stage.run(sys.executable, "-m", "benchmarks.project.loading", BENCHMARK_APPS=apps))
