"""Fixtures of tests on the test databases of this process."""

import pytest

from once import Routine, conf
from tests.unit.conftest import declared

__all__ = ["declared"]


@pytest.fixture(params=["default", "sqlite"], ids=["postgresql", "sqlite"])
def using(request: pytest.FixtureRequest) -> str:
    """Alias of each kind of database in turn."""
    alias: str = request.param
    return alias


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, declared: list[Routine]) -> None:
    """No routine but the test's own, and no setting from the outside."""
    for name in conf.NAMES:
        monkeypatch.delenv(name, raising=False)
