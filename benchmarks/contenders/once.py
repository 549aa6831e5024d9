"""``once`` itself, called as its start-up calls it."""

from benchmarks.contenders import Contender
from benchmarks.project import work
from once import runner
from once.base import Routine
from once.models import Trigger
from once.registry import Registry

__all__ = ["Once"]


class Once(Contender):
    """One pass over a registry of atomic routines."""

    apps = ("once",)
    command = ("once", "run")

    def prepare(self, count: int) -> None:
        self._registry = Registry(_routine(name) for name in work.names(count))

    def run(self) -> None:
        results = runner.run(
            self._registry.startup,
            registry=self._registry,
            trigger=Trigger.STARTUP,
            heeds_delay=True,
        )
        if undone := [result for result in results if not result.is_done]:
            raise RuntimeError(f"{undone[0].routine}: {undone[0].message}")


def _routine(name: str) -> Routine:
    def body() -> None:
        work.effect(name)

    return Routine(function=body, name=name)
