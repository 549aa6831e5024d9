"""The strongest do-it-yourself: django-pglock's transaction-level lock and a model of one's own."""

from typing import ClassVar

import pglock

from benchmarks.contenders import Contender
from benchmarks.project import work
from benchmarks.project.models import Done

__all__ = ["Pglock", "PglockRead"]


class Pglock(Contender):
    """For each routine take the lock, look the routine up, run and record it."""

    apps = ("pgactivity", "pglock")
    command: ClassVar[tuple[str, ...]] = ("pglock_steps",)

    def prepare(self, count: int, first: int = 0) -> None:
        self._names = work.names(count, first)

    def run(self) -> None:
        for name in self._pending():
            with pglock.advisory(name, xact=True):
                if not Done.objects.filter(name=name).exists():
                    work.effect(name)
                    Done.objects.create(name=name)

    def _pending(self) -> list[str]:
        return self._names


class PglockRead(Pglock):
    """The same, after one query that leaves out what is done."""

    command = ("pglock_steps", "--read")

    def _pending(self) -> list[str]:
        done = set(Done.objects.filter(name__in=self._names).values_list("name", flat=True))
        return [name for name in self._names if name not in done]
