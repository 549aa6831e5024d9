"""What must hold whatever the database is: ``TEST_USING=default`` asks the server, too."""

import os

import pytest


@pytest.fixture
def using() -> str:
    """Alias of the fastest database, because these tests know no vendor."""
    return os.environ.get("TEST_USING", "sqlite")


@pytest.fixture(autouse=True)
def _bare(bare: None) -> None: ...
