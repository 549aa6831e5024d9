"""What must hold on each kind of database."""

import pytest


@pytest.fixture(params=["default", "sqlite"], ids=["postgresql", "sqlite"])
def using(request: pytest.FixtureRequest) -> str:
    """Alias of each kind of database in turn."""
    alias: str = request.param
    return alias


@pytest.fixture(autouse=True)
def _bare(bare: None) -> None: ...
