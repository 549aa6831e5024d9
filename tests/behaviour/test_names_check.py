"""once.W004: a record of what is gone beside a routine that is new."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core import checks
from django.core.checks import CheckMessage
from django.db import OperationalError, connections

from once import Routine, record
from once.models import Attempt, Completion
from tests.database.support import effects, seed

pytestmark = pytest.mark.django_db(databases=["default", "sqlite"])


def run_check(*databases: str) -> list[CheckMessage]:
    return checks.run_checks(tags=[checks.Tags.database], databases=databases)


def done(using: str, name: str) -> None:
    Completion.objects.using(using).create(routine=name, version=1)


def test_w004_for_a_new_routine_beside_a_record_of_one_that_is_gone(
    using: str, declared: list[Routine]
) -> None:
    declared += [seed(using, "shop.new"), seed(using, "shop.kept"), seed(using, "stock.new")]
    for name in ("shop.kept", "shop.old"):
        done(using, name)
    [message] = run_check(using)
    assert (message.id, message.level, message.obj) == ("once.W004", checks.WARNING, "shop.new")
    assert message.msg.startswith(f"shop.new is new and would run, while database '{using}' has a")
    assert "record of shop.old," in message.msg
    assert 'pin the old name, @routine(name="shop.old")' in str(message.hint)
    assert "`manage.py once run --fake shop.new`" in str(message.hint)


def test_w004_is_for_the_databases_that_are_checked(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using, "shop.new"))
    done(using, "shop.old")
    assert checks.run_checks(tags=["once"]) == []  # no --database
    [other] = {"default", "sqlite"} - {using}
    assert run_check(other) == []
    assert [message.id for message in run_check("default", "sqlite")] == ["once.W004"]


def attempted(using: str) -> None:
    Attempt.objects.using(using).create(
        routine="shop.new", number=1, version=1, trigger="startup", pid=1
    )


@pytest.mark.parametrize(
    "settle",
    [
        lambda using: done(using, "shop.new"),
        attempted,
        lambda using: Completion.objects.using(using).all().delete(),
    ],
    ids=["done", "tried", "nothing gone"],
)
def test_w004_is_silent_where_nothing_new_stands_beside_nothing_gone(
    using: str, declared: list[Routine], settle: Callable[[str], None]
) -> None:
    declared.append(seed(using, "shop.new"))
    done(using, "shop.old")
    settle(using)
    assert run_check(using) == []


@pytest.mark.parametrize("name", ["stock.old", "call:shop.old", "once.migrate", "old"])
def test_w004_is_silent_about_what_is_of_no_such_app(
    using: str, declared: list[Routine], name: str
) -> None:
    declared.append(seed(using, "shop.new"))
    done(using, name)
    assert run_check(using) == []


def test_w004_leaves_a_release_that_is_not_set_to_another_check(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using, "shop.new", scope="release"))
    done(using, "shop.old")
    assert run_check(using) == []


def test_w004_is_silent_where_the_tables_are_missing(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed(using, "shop.new"))
    for model in (Attempt, Completion):
        monkeypatch.setattr(model._meta, "db_table", f"gone_{model._meta.db_table}")
    assert not record.is_installed(using)
    assert run_check(using) == []
    assert effects(using) == []  # the transaction in hand is not broken


def test_w004_is_silent_where_the_database_is_out_of_reach(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection refused")

    declared.append(seed(using, "shop.new"))
    monkeypatch.setattr(connections[using], "cursor", refuse)
    assert run_check(using) == []
