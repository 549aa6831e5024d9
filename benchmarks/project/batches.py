"""Changing rows in batches: by ``once``, and by a loop of the same transactions by hand.

As a program it goes through those that there are and prints the bytes that this took at most.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import django
from django.db import connection, transaction
from django.db.models import F, QuerySet

if TYPE_CHECKING:
    from benchmarks.project.models import Item

__all__ = ["BATCH_SIZE", "WAYS", "fill", "left"]

BATCH_SIZE = 1000


def fill(rows: int) -> None:
    """Have that many rows, and nothing done."""
    from benchmarks.project import work

    work.truncate()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO project_item (counter, text) "
            "SELECT 0, repeat('x', 100) FROM generate_series(1, %s)",
            [rows],
        )
        cursor.execute("ANALYZE project_item")


def left() -> int:
    """How many rows were not changed exactly once."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM project_item WHERE counter <> 1")
        found: int = cursor.fetchone()[0]
        return found


def body(items: "QuerySet[Item]") -> None:
    """The body: one UPDATE for each batch."""
    items.update(counter=F("counter") + 1)


def by_hand() -> None:
    """Each batch found by its keys, changed, and committed with where to go on."""
    from benchmarks.project.models import Done, Item

    position = Done.objects.create(name="0")
    size = BATCH_SIZE
    while size == BATCH_SIZE:
        with transaction.atomic():
            beyond = Item.objects.filter(pk__gt=position.name).order_by("pk")
            keys = list(beyond.values_list("pk", flat=True)[:BATCH_SIZE])
            size = len(keys)
            if keys:
                body(beyond.filter(pk__lte=keys[-1]))
                position.name = str(keys[-1])
                position.save(update_fields=["name"])


def by_once() -> None:
    """One batched routine."""
    from benchmarks.contenders.once import run
    from benchmarks.project.models import Item
    from once.routines.base import Routine
    from once.routines.registry import Registry

    routine = Routine(
        function=body, name="project.batches", over=Item.objects.all, batch_size=BATCH_SIZE
    )
    run(Registry([routine]))


def peak() -> int:
    """Bytes of memory that this process had at most; from Linux, which counts from its exec on.

    What getrusage() says a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("This system does not tell how much memory a process had.")


#: By contender. The loop is the floor.
WAYS: Mapping[str, Callable[[], None]] = {"floor": by_hand, "once": by_once}

if __name__ == "__main__":
    django.setup()
    WAYS[sys.argv[1]]()
    print(peak())
