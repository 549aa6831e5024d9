"""The same initialization without ``once``, as many entrypoints have it."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from ... import routines


class Command(BaseCommand):
    """Apply the migrations, then call each function that loads data."""

    def handle(self, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        routines.load_countries()  # to call a routine is to call its function, without a record
        routines.load_currencies()
        routines.link_issuers()
        routines.load_subdivisions()
        routines.load_places()
