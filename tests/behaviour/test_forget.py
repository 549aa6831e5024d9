"""``once forget``: what it does, prints and ends with."""

import sys
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.db import OperationalError, connections

from once import Routine
from once.databases import database
from once.models import Anchor, Attempt, Completion
from tests.behaviour.command import Answer, Terminal, call, failing, held
from tests.support import attempts, begin, completions, effects, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

NONE = (0, 0, 0)


def forget(*arguments: str) -> Answer:
    return Answer("forget", "--noinput", *arguments)


def recorded(using: str, name: str) -> tuple[int, ...]:
    """How many rows each table has of a routine."""
    models: list[type[Completion | Attempt | Anchor]] = [Completion, Attempt, Anchor]
    return tuple(model.objects.using(using).filter(routine=name).count() for model in models)


def test_forget_removes_all_that_is_recorded_of_a_routine_that_is_gone(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    run(seed(using), seed(using, "shop.gone"), seed(using, "shop.gone_too"))
    run(seed(using, "shop.gone", version=2))
    answer = forget("shop.gone")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "  shop.gone: removed 2 anchors, 2 attempts, 2 completions.\n"
    assert recorded(using, "shop.gone") == NONE
    assert [recorded(using, name) for name in ("shop.seed", "shop.gone_too")] == [(1, 1, 1)] * 2
    assert "shop.gone " not in Answer("status").out
    run(seed(using, "shop.gone"))
    assert attempts(using)[0] == ("shop.gone", 1, "succeeded")


@pytest.mark.parametrize("make", [failing, held], ids=["failed", "held"])
def test_forget_removes_what_never_completed(
    using: str, declared: list[Routine], make: Callable[[str, str], Routine]
) -> None:
    run(make(using, "shop.gone"))
    assert forget("shop.gone").code == 0
    assert recorded(using, "shop.gone") == NONE


def test_forget_removes_a_completion_that_has_no_history(
    using: str, declared: list[Routine]
) -> None:
    Completion.objects.using(using).create(routine="shop.gone", version=4)
    assert forget("shop.gone").out == (
        "  shop.gone: removed 0 anchors, 0 attempts, 1 completions.\n"
    )
    assert recorded(using, "shop.gone") == NONE


def test_forget_of_a_pattern_removes_what_it_means(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    run(*(seed(using, name) for name in ("old.a", "old.b", "older.a")))
    assert forget("old.*").code == 0
    assert [name for name, _ in completions(using)] == ["older.a"]


def test_command_of_once_call_is_forgotten_by_its_key_and_runs_again(using: str) -> None:
    call(using)
    answer = forget("prices")
    assert answer.code == 0
    assert answer.out == (
        "  call:prices: removed 1 anchors, 1 attempts, 1 completions.\n"
        "  A command runs again where `manage.py once call` calls it.\n"
    )
    call(using)
    assert effects(using) == ["cheap", "cheap"]


@pytest.mark.parametrize("names", [["shop.seed"], ["shop.*"], ["shop.gone", "shop.seed"]])
def test_forget_of_a_routine_of_this_code_is_a_usage_error_that_names_reset(
    using: str, declared: list[Routine], names: list[str]
) -> None:
    declared.append(seed(using))
    run(seed(using), seed(using, "shop.gone"))
    answer = forget(*names)
    assert answer.code == 2
    assert answer.message == (
        "shop.seed is in this code, so that its record is needed. To have it run again, call "
        "`manage.py once reset shop.seed`."
    )
    assert len(completions(using)) == 2


@pytest.mark.parametrize("name", ["shop.none", "", "once.migrate", "once.*"])
def test_forget_of_what_is_not_recorded_is_a_usage_error(using: str, name: str) -> None:
    Completion.objects.using(using).create(routine="once.migrate", version=1)
    answer = forget(name)
    assert answer.code == 2
    assert answer.message.startswith(f"No routine is named {name!r}")
    assert recorded(using, "once.migrate") == (1, 0, 0)


def test_forget_of_a_name_in_several_databases_wants_one_named() -> None:
    for using in ("default", "sqlite"):
        run(seed(using, "shop.gone"))
    answer = forget("shop.gone")
    assert (answer.code, answer.message) == (
        2,
        "shop.gone is recorded in several databases: default, sqlite. Name one by --database.",
    )
    assert forget("shop.gone", "--database", "sqlite").code == 0
    assert recorded("sqlite", "shop.gone") == NONE
    assert recorded("default", "shop.gone") == (1, 1, 1)


@pytest.mark.parametrize("is_attempted", [True, False], ids=["attempt", "lock"])
def test_forget_of_what_runs_is_refused(using: str, is_attempted: bool) -> None:
    run(seed(using, "shop.gone"))
    with database(using).lock("shop.gone", 15.0) as lock:
        take(lock)
        if is_attempted:
            begin(seed(using, "shop.gone"))
        before = attempts(using)
        answer = forget("shop.gone")
    assert answer.code == 3
    assert answer.message.startswith("shop.gone is not removed: its lock is taken by ")
    assert attempts(using) == before
    assert recorded(using, "shop.gone")[0] == 1


def test_attempt_of_a_process_that_died_is_forgotten_too(using: str) -> None:
    begin(seed(using, "shop.gone"))
    assert forget("shop.gone").code == 0
    assert recorded(using, "shop.gone") == NONE


def test_forget_without_a_terminal_wants_to_be_confirmed(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("yes\n"))
    run(seed(using, "shop.gone"))
    answer = Answer("forget", "shop.gone")
    assert (answer.code, answer.message) == (
        2,
        "This removes the only records that these routines ran: shop.gone. Where there is no "
        "terminal to ask, confirm by --noinput.",
    )
    assert recorded(using, "shop.gone") == (1, 1, 1)


@pytest.mark.parametrize(("said", "code"), [("yes", 0), ("no", 3)])
def test_forget_in_a_terminal_asks(
    using: str, monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: said)
    run(seed(using, "shop.gone"))
    answer = Answer("forget", "shop.gone")
    assert answer.code == code
    assert "Where code has or calls one, it runs again:\n  shop.gone\n" in answer.out
    assert answer.message == ("Nothing was removed." if code else "")
    assert recorded(using, "shop.gone") == ((1, 1, 1) if code else NONE)


def test_status_of_an_unknown_routine_names_the_command(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    run(seed(using), seed(using, "shop.gone"))
    assert Answer("status").out.endswith(
        "      Not in this code. Its record is left alone; if no release has it any more, "
        "`manage.py once forget shop.gone` removes that.\n"
    )


def test_forget_removes_all_or_nothing(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("DELETE") and "once_completion" in sql:
            raise OperationalError("no")
        return execute(sql, *args)

    monkeypatch.setenv("ONCE_STARTUP_TIMEOUT", "0")
    run(seed(using, "shop.gone"))
    connections[using].ensure_connection()  # which the command then uses
    with connections[using].execute_wrapper(refuse):
        assert forget("shop.gone").code == 4
    assert recorded(using, "shop.gone") == (1, 1, 1)
