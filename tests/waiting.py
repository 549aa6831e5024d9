"""Waiting for a condition, never for a second."""

import time
from collections.abc import Callable

__all__ = ["GRACE", "PATIENCE", "wait_until"]

#: Seconds that a loaded machine may add to what a test sees to be prompt. How prompt it is,
#: benchmarks/ measures.
GRACE = 10.0

#: Seconds after which what must come is missing. A loaded machine may need half of them.
PATIENCE = 120.0


def wait_until(
    condition: Callable[[], object],
    timeout: float = PATIENCE,
    what: str | Callable[[], str] = "the condition",
) -> float:
    """Poll until the condition is true; return how many seconds that took.

    Polls get rarer with time, because those of several tests would load the machine.
    """
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        if waited > timeout:
            raise TimeoutError(f"Waited {timeout} s for {what() if callable(what) else what}")
        time.sleep(min(max(0.01, waited / 20), 0.1))
    return time.monotonic() - begun
