"""What is shown of the record, where more than one alias leads to it."""

from collections.abc import Iterator

import pytest
from django.db import connections

from once.base import CALL
from once.registry import Registry
from once.status import statuses
from tests.database.support import run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture
def replica() -> Iterator[str]:
    """An alias that shows what ``default`` holds, and comes before it in the alphabet."""
    alias = "a_replica"
    connections[alias] = connections["default"].copy(alias)
    yield alias
    connections[alias].close()
    del connections[alias]


def test_command_that_a_replica_shows_as_well_is_the_primarys(replica: str) -> None:
    run(seed("default", f"{CALL}prices"))
    (shown,) = statuses(Registry([]), databases=[replica, "default"])
    assert (shown.name, shown.kind, shown.database) == ("call:prices", "call", "default")


def test_routine_of_nobody_is_not_shown_of_a_replica_alone(replica: str) -> None:
    run(seed("default", "gone.routine"), seed("default", f"{CALL}prices"))
    assert [one.name for one in statuses(Registry([]), databases=[replica])] == ["call:prices"]
