"""Ctrl-C and SIGTERM, where they must wait."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["postponed"]


@contextmanager
def postponed() -> Iterator[None]:
    """A context that is brought to its end before KeyboardInterrupt is raised.

    For the moment between starting something and knowing how to end it.
    """
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        if came:
            raise KeyboardInterrupt
