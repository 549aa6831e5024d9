"""Fixtures of tests on the test databases of this process."""

import pytest
from django.db import connection

from once import Routine, conf
from tests.unit.conftest import declared

__all__ = ["declared"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is PostgreSQL's alone where ``default`` is another server."""
    if connection.vendor == "postgresql":
        return
    others = [item for item in items if item.get_closest_marker("postgresql")]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


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
