"""Fixtures of tests that declare routines."""

import pytest

from once import declare, process, registry
from once.base import Routine

__all__ = ["declared"]


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[Routine]:
    """Every declared routine: none, until the test declares some."""
    routines: list[Routine] = []
    monkeypatch.setattr(declare, "declared", routines)
    monkeypatch.setattr(registry, "_loaded", None)
    monkeypatch.setattr(process, "_run", set())
    return routines
