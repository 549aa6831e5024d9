"""Lets a test and the bodies in other processes meet, by files in the directory HANDSHAKE."""

import os
from pathlib import Path

from tests.waiting import PATIENCE, wait_until

__all__ = ["hold", "reach"]


def reach(point: str) -> None:
    """Tell the test that this process came to a point."""
    (_directory() / f"{point}.{os.getpid()}").touch()


def hold(point: str) -> None:
    """Come to a point, and go on when the test says so."""
    reach(point)
    wait_until((_directory() / f"{point}.go").exists, timeout=3 * PATIENCE, what=f"{point}.go")


def _directory() -> Path:
    return Path(os.environ["HANDSHAKE"])
