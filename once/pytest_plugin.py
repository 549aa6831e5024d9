"""The pytest plugin, found by itself where pytest-django is in use."""

from typing import Any

import pytest

__all__ = ["once_routines"]


@pytest.fixture(scope="session")
def once_routines(django_db_setup: None, django_db_blocker: Any) -> None:
    """Complete every routine in the test database, once, after its migrations."""
    from once.testing import complete_routines

    with django_db_blocker.unblock():
        complete_routines()
