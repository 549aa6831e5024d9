"""How long a statement waits for a lock, and which session is in its way."""

import pytest
from django.db import connections, transaction

from once.databases import database
from tests.support import rows

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.postgresql,
]

SHOW = "SELECT current_setting('lock_timeout')"


def shown(seconds: float) -> tuple[float, str]:
    """The limit that holds, and what a statement finds."""
    here = database("default")
    with here.limiting_locks(seconds) as (limit, session):
        assert session == connections["default"].connection.info.backend_pid
        [(setting,)] = rows("default", SHOW)
    return limit, setting


def test_limit_is_of_one_statement() -> None:
    assert shown(0.25) == (0.25, "250ms")
    assert rows("default", SHOW) == [("0",)]
    with transaction.atomic():
        assert shown(5) == (5, "5s")
        assert rows("default", SHOW) == [("0",)]
        assert shown(2) == (2, "2s")


@pytest.mark.parametrize(
    ("own", "found"), [("3s", (3.0, "3s")), ("1min", (5.0, "5s"))], ids=["shorter", "longer"]
)
def test_shorter_limit_of_the_project_stays(own: str, found: tuple[float, str]) -> None:
    connection = connections["default"]
    connection.close()
    before = connection.settings_dict["OPTIONS"].get("options", "")
    connection.settings_dict["OPTIONS"]["options"] = f"{before} -c lock_timeout={own}"
    try:
        assert shown(5) == found
        with transaction.atomic():
            assert shown(5) == found
            assert rows("default", SHOW) == [(own,)]
    finally:
        connection.close()
        connection.settings_dict["OPTIONS"]["options"] = before


@pytest.mark.parametrize(("own", "seconds"), [("1min", 60.0), ("0", 0.0)])
def test_limit_that_a_statement_sets_stays(own: str, seconds: float) -> None:
    with transaction.atomic():
        with database("default").limiting_locks(5):
            rows("default", f"SET LOCAL lock_timeout = '{own}'")
        assert rows("default", SHOW) == [(own,)]
        assert shown(5) == (seconds, own)
        assert rows("default", SHOW) == [(own,)]
