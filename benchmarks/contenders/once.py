"""``once`` itself, called as its start-up calls it."""

from benchmarks.contenders import Contender
from benchmarks.project import work
from once import runner
from once.base import Routine
from once.models import Trigger
from once.registry import Registry

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
    results = runner.run(
        registry.startup, registry=registry, trigger=Trigger.STARTUP, heeds_delay=True
    )
    if undone := [result for result in results if not result.is_done]:
        raise RuntimeError(f"{undone[0].routine}: {undone[0].message}")


def _routine(name: str) -> Routine:
    def body() -> None:
        work.effect(name)

    return Routine(function=body, name=name)
