"""The pytest plugin, found by itself where pytest-django is in use."""

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from once import conf

if TYPE_CHECKING:
    from once.routines.base import Routine

__all__ = ["once_completed", "once_registry", "once_routines"]


def pytest_configure(config: pytest.Config) -> None:
    """Tell this process, and those that tests start, that they are tests: they run no routines."""
    patch = pytest.MonkeyPatch()
    patch.setenv(conf.TESTS, str(os.getpid()))
    config.add_cleanup(patch.undo)


@pytest.fixture(scope="session")
def once_routines(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any
) -> None:
    """Complete every routine in the test databases, once, after their migrations.

    Databases that no collected test names are left alone, because they are still the real ones:
    pytest-django makes no test database for them.
    """
    from once.testing import complete_routines

    named = {alias for item in request.session.items for alias in _databases(item)}
    with django_db_blocker.unblock():
        complete_routines(named)


@pytest.fixture
def once_completed(request: pytest.FixtureRequest, db: None) -> None:
    """Complete every routine for this test, whatever a transactional test before it emptied.

    Only the databases of the test's ``django_db`` mark are completed.
    """
    from once.testing import complete_routines

    complete_routines({*_databases(request.node)})


@pytest.fixture
def once_registry() -> "Iterator[list[Routine]]":
    """No routines but those that this test declares; the list of them."""
    from once.testing import isolated_registry

    with isolated_registry() as declared:
        yield declared


def _databases(item: Any) -> Iterable[str]:
    """Return the aliases that a test names, as pytest-django understands them."""
    from django.db import DEFAULT_DB_ALIAS, connections
    from django.test import TransactionTestCase

    mark = item.get_closest_marker("django_db")
    test_class = getattr(item, "cls", None)
    if test_class is not None and issubclass(test_class, TransactionTestCase):
        named = test_class.databases
    elif mark is not None:
        # transaction, reset_sequences, databases
        named = mark.args[2] if len(mark.args) > 2 else mark.kwargs.get("databases")
    elif {"db", "transactional_db", "live_server"} & {*getattr(item, "fixturenames", ())}:
        named = None
    else:
        return ()
    if named == "__all__":
        return connections
    return (DEFAULT_DB_ALIAS,) if named is None else named
