"""Takes the time of contenders in turns, so that whatever else the machine does hits them alike."""

import random
from collections.abc import Callable, Mapping
from time import perf_counter

__all__ = ["interleaved", "seconds"]


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = perf_counter()
    function()
    return perf_counter() - begun


def interleaved(
    cases: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, tuple[float, ...]]:
    """Call each case once in each round, in an order of chance, the same in each run.

    Args:
        cases: by name, what measures once and returns a value; it may prepare as it likes.
        rounds: how often.

    Returns:
        The values by name, one for each round.

    """
    chance = random.Random(0)  # noqa: S311
    names = list(cases)
    values: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        chance.shuffle(names)  # nobody always follows the one that leaves caches cold
        for name in names:
            values[name].append(cases[name]())
    return {name: tuple(found) for name, found in values.items()}
