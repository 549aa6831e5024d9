"""once.W004: a record of what is gone beside a routine that is new."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core import checks
from django.core.checks import CheckMessage
from django.db import OperationalError, connections

from once import Routine
from once.engine import executor
from once.engine.options import RunOptions
from once.models import Attempt, Completion
from once.record import history
from once.routines.registry import Registry
from tests.behaviour.command import Answer
from tests.support import effects, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


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
    assert not history.is_installed(using)
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


def test_w004_names_all_that_is_new_of_an_app_in_one_warning(
    using: str, declared: list[Routine]
) -> None:
    declared += [seed(using, f"shop.new{number}") for number in (1, 2)]
    declared.append(seed(using, "stock.new"))
    for name in ("shop.old", "shop.older", "stock.old"):
        done(using, name)
    of_shop, of_stock = run_check(using)
    assert of_shop.msg.startswith(
        f"shop.new1, shop.new2 are new and would run, while database '{using}'"
    )
    assert "a record of shop.old, shop.older, which" in of_shop.msg
    assert "If one of them was renamed" in of_shop.msg
    assert "`manage.py once run --fake NAME`" in str(of_shop.hint)
    assert of_stock.msg.startswith("stock.new is new")


def renamed(using: str, declared: list[Routine]) -> str:
    """Declare a routine beside a record of one that is gone; what the check says of it."""
    declared.append(seed(using, "shop.new"))
    done(using, "shop.old")
    [message] = run_check(using)
    return f"{message.msg} {message.hint}"


@pytest.mark.parametrize("arguments", [["run"], ["run", "--plan"], ["status"]], ids=" ".join)
def test_command_says_what_w004_says(
    arguments: list[str], using: str, declared: list[Routine]
) -> None:
    warning = renamed(using, declared)
    assert warning in Answer(*arguments).out


def test_starting_server_logs_what_w004_says_and_once(
    using: str, declared: list[Routine], caplog: pytest.LogCaptureFixture
) -> None:
    warning = renamed(using, declared)
    for _ in range(2):
        executor.run(declared, Registry(declared), RunOptions(trigger="startup"))
    [told] = [one for one in caplog.records if getattr(one, "once", {}).get("event") == "suspected"]
    assert vars(told)["once"]["message"] == warning
    assert told.levelname == "WARNING"


def test_run_tells_once_of_a_record_beside_many_new_routines(
    using: str, declared: list[Routine]
) -> None:
    declared += [seed(using, "shop.kept"), *(seed(using, f"shop.new{n}") for n in (1, 2, 3))]
    for name in ("shop.kept", "shop.old"):
        done(using, name)
    [message] = run_check(using)
    warning = f"{message.msg} {message.hint}"
    assert warning.startswith("shop.new1, shop.new2, shop.new3 are new and would run, while ")
    short = "Like shop.new1, it may have run as shop.old."
    for arguments in (["status"], ["run", "--plan"]):
        shown = Answer(*arguments).out
        assert (shown.count(warning), shown.count(short)) == (1, 2)
    assert short in Answer("status", "shop.new2").out
    ran = Answer("run").out
    assert (ran.count(warning), ran.count("a record of shop.old")) == (1, 1)
    assert effects(using) == ["shop.new1", "shop.new2", "shop.new3"]


def test_run_of_some_new_routines_tells_of_those(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, f"shop.new{n}") for n in (1, 2, 3)]
    done(using, "shop.old")
    assert "  shop.new2, shop.new3 are new and would run, while" in (
        Answer("run", "shop.new2", "shop.new3").out
    )
    assert "  shop.new1 is new and would run, while" in Answer("run").out
