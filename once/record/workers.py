"""The proof that ``once work`` looks, by which a person may have a routine run now."""

from contextlib import suppress
from datetime import timedelta

from django.db import IntegrityError
from django.db.models import QuerySet

from once.databases import database
from once.models import Now, Worker

#: Seconds after which a look proves nothing any more.
SECONDS = 30
#: Seconds between two writes of all processes of a role.
_REST = 10


def tell(using: str, role: str) -> None:
    """Record that a process of this role has just looked, unless another did a moment ago."""
    with database(using).reading(), database(using).statements():
        if role in present(using, _REST):
            return
        rows = Worker.objects.using(using)
        if not rows.filter(role=role).update(looked_at=Now()):
            with suppress(IntegrityError):  # because another process has inserted it
                rows.create(role=role)


def present(using: str, seconds: float = SECONDS) -> set[str]:
    """Return the roles of which a process has looked within so many seconds."""
    # By the database's clock. Because it may be set back, a look that lies ahead proves nothing.
    lately = (Now() - timedelta(seconds=seconds), Now())
    rows: QuerySet[Worker] = Worker.objects.using(using).filter(looked_at__range=lately)
    return {*rows.values_list("role", flat=True)}
