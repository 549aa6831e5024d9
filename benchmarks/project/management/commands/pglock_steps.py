from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from benchmarks.contenders import contenders
from benchmarks.project import work


class Command(BaseCommand):
    help = "Run the routines under the locks of django-pglock."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--read", action="store_true", help="Leave out what is done, first.")

    def handle(self, *, read: bool, **options: Any) -> None:
        [pglock] = contenders(["pglock_read" if read else "pglock"])
        pglock.prepare(work.COUNT)
        pglock.run()
