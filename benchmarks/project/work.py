"""The routines that all contenders run: one body, under as many names as are asked for."""

import environ
from django.db import connection

from benchmarks.project import ledger

__all__ = ["COUNT", "effect", "effects", "names", "truncate"]

env = environ.Env()

#: How many routines the processes of this project have; those in process are made as needed.
COUNT = env.int("BENCHMARK_ROUTINES", default=0)


def names(count: int, first: int = 0) -> list[str]:
    """The names of that many routines."""
    return [f"project.step_{number:04}" for number in range(first, first + count)]


def effect(name: str) -> None:
    """The body: one INSERT; where there is a ledger, a long one that uses its session."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO project_effect (name) VALUES (%s)", [name])
        if ledger.is_open():
            ledger.last(lambda: cursor.execute("SELECT 1"))


def effects() -> int:
    """How often the body was called to some effect."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM project_effect")
        found: int = cursor.fetchone()[0]
        return found


def truncate() -> None:
    """Forget all effects, and all that contenders recorded."""
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE once_anchor, once_attempt, once_completion, project_done, project_effect, "
            "project_item, post_deploy_postdeploylog; "
            "DELETE FROM django_migrations WHERE app = 'steps'"
        )
