"""A wait for what others run, and trouble with what it asks meanwhile."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, ProgrammingError

from once.databases import unapplied
from once.exceptions import DatabaseUnavailable, TimedOut
from once.record import history
from once.routines.registry import Registry
from once.status import readiness, survey
from tests.support import rows, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def test_connection_that_is_lost_while_the_obstacle_is_named_ends_no_wait(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    routine = seed(using)
    name_all = survey.statuses_of
    errors: Iterator[Exception] = iter([OperationalError("server closed the connection")])

    def lose_first(*args: Any, **options: Any) -> Any:
        for error in errors:
            run(routine)
            raise error
        return name_all(*args, **options)

    monkeypatch.setattr(readiness, "statuses_of", lose_first)
    readiness.wait(Registry([routine]), [routine], [], timeout=60)
    assert next(errors, None) is None


def test_error_of_a_database_without_routines_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routine = seed("default")
    run(routine)
    is_installed = history.is_installed
    monkeypatch.setattr(
        history, "is_installed", lambda alias: alias == "default" and is_installed(alias)
    )

    def names(alias: str) -> list[str]:
        if alias == "sqlite":
            raise ProgrammingError("permission denied for table django_migrations")
        return []

    monkeypatch.setattr(unapplied, "names", names)
    with pytest.raises(DatabaseUnavailable, match=r"'sqlite' cannot be used: .*permission denied"):
        readiness.wait(Registry([routine]), [routine], ["default", "sqlite"], timeout=0.2)


@pytest.mark.parametrize(
    ("app", "advice"),
    [
        ("once", r"missing, though their migration is recorded.* once zero --fake`, then"),
        ("twice", r"missing\. Run `manage.py once run --migrate`\."),
    ],
    ids=["lost", "never made"],
)
def test_wait_for_tables_that_are_missing_says_what_makes_them(
    using: str, app: str, advice: str
) -> None:
    routine = seed(using)
    rows(using, "ALTER TABLE once_completion RENAME TO elsewhere")
    rows(using, f"UPDATE django_migrations SET app = '{app}' WHERE app = 'once'")
    try:
        with pytest.raises(TimedOut, match=advice):
            readiness.wait(Registry([routine]), [routine], [], timeout=0.2)
    finally:
        rows(using, f"UPDATE django_migrations SET app = 'once' WHERE app = '{app}'")
        rows(using, "ALTER TABLE elsewhere RENAME TO once_completion")
