from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from tests.shop.handshake import hold
from tests.shop.models import Effect


class Command(BaseCommand):
    help = "Leaves an effect behind, holds or fails where it is told to, and says so."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS)
        parser.add_argument("--password")
        parser.add_argument("--period")
        parser.add_argument("--hold", metavar="POINT")
        parser.add_argument("--fail", action="store_true")
        parser.add_argument("--about", action="version", version="leave 1.0")

    def handle(self, *, name: str, database: str, verbosity: int, **options: Any) -> None:
        Effect.objects.using(database).create(name=name)
        if verbosity:
            self.stdout.write(f"Left {name} behind.")
        if options["hold"]:
            hold(options["hold"])
        if options["fail"]:
            raise CommandError("There is nothing to leave.", returncode=9)
