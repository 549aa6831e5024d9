"""What most people do: one migration with ``RunPython`` for each routine."""

from django.conf import settings
from django.core.management import call_command

from benchmarks.contenders import Contender
from benchmarks.project import migration_files

__all__ = ["Migrate"]


class Migrate(Contender):
    """Django's command, called in this process."""

    apps = ()
    command = ("migrate",)

    def prepare(self, count: int, first: int = 0) -> None:
        self._package = migration_files.written(count, first)

    def run(self) -> None:
        # For this call only: to others they would be unapplied migrations of this code.
        settings.MIGRATION_MODULES["steps"] = self._package
        try:
            call_command("migrate", verbosity=0)
        finally:
            settings.MIGRATION_MODULES["steps"] = None

    def environment(self, count: int) -> dict[str, str]:
        return {"BENCHMARK_STEPS": migration_files.written(count, 0)}
