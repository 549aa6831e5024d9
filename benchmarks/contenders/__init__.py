"""Ways to run code once, side by side.

Each is a small adapter with one face, so that a measure asks the same of all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import ClassVar

__all__ = ["TITLES", "Contender", "contenders"]

#: What people call them, in the order of the table.
TITLES: Mapping[str, str] = {
    "floor": "floor",
    "pglock": "`pglock`, own model",
    "pglock_read": "`pglock`, one SELECT first",
    "post_deploy": "django-post-deploy",
    "migrate": "`migrate` + `RunPython`",
    "once": "**once**",
}

_CLASSES = {
    "floor": "floor.Floor",
    "pglock": "pglock.Pglock",
    "pglock_read": "pglock.PglockRead",
    "post_deploy": "post_deploy.PostDeploy",
    "migrate": "migrate.Migrate",
    "once": "once.Once",
}


class Contender(ABC):
    """One way to run code once, in this process and as a process of its own."""

    #: What it needs in INSTALLED_APPS.
    apps: ClassVar[tuple[str, ...]] = ()
    #: The arguments of ``manage.py`` that run what is pending.
    command: ClassVar[tuple[str, ...]]

    def __init__(self, name: str) -> None:
        #: What figures call it.
        self.name = name

    @abstractmethod
    def prepare(self, count: int, first: int = 0) -> None:
        """Have that many routines, whose body is :func:`benchmarks.project.work.effect`."""

    @abstractmethod
    def run(self) -> None:
        """Bring all of them to completion, as a process does that starts."""

    def environment(self, count: int) -> dict[str, str]:
        """What its processes need to have that many routines."""
        return {"BENCHMARK_ROUTINES": str(count)}


def contenders(names: Iterable[str] = tuple(TITLES)) -> list[Contender]:
    """The contenders of these names. Django must be set up."""
    return [_class(name)(name) for name in names]


def _class(name: str) -> type[Contender]:
    # Only now: their modules hold models, or need an extra.
    module, _, kind = _CLASSES[name].partition(".")
    found: type[Contender] = getattr(import_module(f"{__name__}.{module}"), kind)
    return found
