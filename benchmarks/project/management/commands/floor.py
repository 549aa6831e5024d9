from typing import Any

from django.core.management.base import BaseCommand

from benchmarks.contenders import contenders
from benchmarks.project import work


class Command(BaseCommand):
    help = "Run the routines with the least that can be done."

    def handle(self, **options: Any) -> None:
        [floor] = contenders(["floor"])
        floor.prepare(work.COUNT)
        floor.run()
