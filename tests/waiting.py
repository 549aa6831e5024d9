"""Waiting for a condition, never for a second."""

import time
from collections.abc import Callable

__all__ = ["GRACE", "wait_until"]

#: Seconds that a loaded machine may add to what a test sees to be prompt. How prompt it is,
#: benchmarks/ measures.
GRACE = 10.0


def wait_until(
    condition: Callable[[], object],
    timeout: float = 30.0,
    what: str | Callable[[], str] = "the condition",
) -> float:
    """Poll until the condition is true; how many seconds that took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout:
            raise TimeoutError(f"Waited {timeout} s for {what() if callable(what) else what}")
        time.sleep(0.01)
    return time.monotonic() - begun
