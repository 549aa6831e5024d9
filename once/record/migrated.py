"""The record that ``once run --migrate`` brought a database to a set of migrations."""

from contextlib import suppress

from django.db import IntegrityError

from once.databases import database
from once.models import Completion


def is_migrated(using: str, name: str, digest: str) -> bool:
    """True if a database was brought to the migrations of this digest."""
    with database(using).statements():
        return Completion.objects.using(using).filter(routine=name, scope_key=digest).exists()


def record_migrated(using: str, name: str, digest: str) -> None:
    """Record that a database was brought to the migrations of this digest."""
    with suppress(IntegrityError), database(using).statements():
        Completion(routine=name, version=1, scope_key=digest).save(using=using, force_insert=True)
