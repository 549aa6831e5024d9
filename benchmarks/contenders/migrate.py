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

    def prepare(self, count: int) -> None:
        settings.MIGRATION_MODULES["steps"] = migration_files.written(count)

    def run(self) -> None:
        call_command("migrate", verbosity=0)

    def environment(self, count: int) -> dict[str, str]:
        return {"BENCHMARK_STEPS": migration_files.written(count)}
