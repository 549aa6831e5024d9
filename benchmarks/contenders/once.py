"""``once`` itself, called as its start-up calls it."""

from benchmarks.contenders import Contender
from benchmarks.project import work
from once.engine import executor
from once.engine.options import RunOptions
from once.models import Trigger
from once.routines.base import Routine
from once.routines.registry import Registry

__all__ = ["Once", "run"]


class Once(Contender):
    """One pass over a registry of atomic routines."""

    apps = ("once",)
    command = ("once", "run")

    def prepare(self, count: int, first: int = 0) -> None:
        self._registry = Registry(_routine(name) for name in work.names(count, first))

    def run(self) -> None:
        run(self._registry)


def run(registry: Registry) -> None:
    """What a starting server does about these routines."""
    options = RunOptions(trigger=Trigger.STARTUP, respects_backoff=True)
    results = executor.run(registry.startup, registry, options)
    if undone := [result for result in results if not result.is_done]:
        raise RuntimeError(f"{undone[0].routine}: {undone[0].message}")


def _routine(name: str) -> Routine:
    def body() -> None:
        work.effect(name)

    return Routine(function=body, name=name)
