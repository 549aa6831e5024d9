"""What must hold on each kind of database."""

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests import items


@pytest.fixture(params=["default", "sqlite"], ids=["postgresql", "sqlite"])
def using(request: pytest.FixtureRequest) -> str:
    """Alias of each kind of database in turn."""
    alias: str = request.param
    return alias


@pytest.fixture(autouse=True)
def _bare(bare: None) -> None: ...


@pytest.fixture(scope="module")
def item_tables(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The tables of :mod:`tests.items`, for the tests of a module."""
    with django_db_blocker.unblock():
        for using in ("default", "sqlite"):
            items.create_tables(using)
        yield
        for using in ("default", "sqlite"):
            items.drop_tables(using)
