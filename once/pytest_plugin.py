"""The pytest plugin, found by itself where pytest-django is in use."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from once.base import Routine

__all__ = ["once_completed", "once_registry", "once_routines"]


@pytest.fixture(scope="session")
def once_routines(django_db_setup: None, django_db_blocker: Any) -> None:
    """Complete every routine in the test database, once, after its migrations."""
    from once.testing import complete_routines

    with django_db_blocker.unblock():
        complete_routines()


@pytest.fixture
def once_completed(request: pytest.FixtureRequest, db: None) -> None:
    """Complete every routine for this test, whatever a transactional test before it emptied.

    It keeps to the databases of the test's ``django_db`` mark.
    """
    from once.testing import complete_routines

    mark = request.node.get_closest_marker("django_db")
    databases: Collection[str] | None = (mark and mark.kwargs.get("databases")) or ["default"]
    complete_routines(None if databases == "__all__" else databases)


@pytest.fixture
def once_registry() -> "Iterator[list[Routine]]":
    """No routines but those that this test declares; the list of them."""
    from once.testing import isolated_registry

    with isolated_registry() as declared:
        yield declared
