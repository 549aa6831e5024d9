"""The routines that all contenders run: one body, under as many names as are asked for."""

import environ
from django.db import connection

__all__ = ["COUNT", "effect", "names"]

env = environ.Env()

#: How many routines the processes of this project have; those in process are made as needed.
COUNT = env.int("BENCHMARK_ROUTINES", default=0)


def names(count: int) -> list[str]:
    """The names of that many routines."""
    return [f"project.step_{number:04}" for number in range(count)]


def effect(name: str) -> None:
    """The body: one INSERT."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO project_effect (name) VALUES (%s)", [name])
