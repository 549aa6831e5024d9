"""Goes through all rows in batches, with a throttle if the argument of the program says so."""

import sys

import django

from benchmarks.project.batches import BATCH_SIZE, body

__all__ = ["BOUND"]

#: Seconds that a replica may be behind.
BOUND = 1.0


def run(*, is_throttled: bool) -> None:
    """Run one batched routine."""
    from benchmarks.contenders.once import run
    from benchmarks.project.models import Item
    from once.routines.base import Routine
    from once.routines.registry import Registry
    from once.throttles import replica_lag

    routine = Routine(
        function=body,
        name="project.throttled",
        over=Item.objects.all,
        batch_size=BATCH_SIZE,
        throttle=(replica_lag(BOUND),) if is_throttled else (),
    )
    run(Registry([routine]))


if __name__ == "__main__":
    django.setup()
    run(is_throttled=sys.argv[1] == "throttled")
