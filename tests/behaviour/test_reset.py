"""``once reset``: what it does, prints and ends with."""

import getpass
import os
import sys
from collections.abc import Callable
from io import StringIO

import pytest

from once import Routine
from once.databases import database
from once.models import Completion
from once.routines import registry
from once.status.survey import statuses_of
from tests.behaviour.command import Answer, Terminal, call, failing, held, reset
from tests.support import attempts, begin, effects, last, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def test_reset_goes_into_the_history_with_who_and_why(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    declared.append(seed(using))
    run(declared[0])
    answer = reset("shop.seed", "--reason", "wrong prices")
    assert (answer.code, answer.err) == (0, "")
    assert "  shop.seed... OK\n" in answer.out
    assert answer.out.endswith("  Pending again: shop.seed. Next: `manage.py once run`.\n")
    row = last(using)
    assert (row.state, row.trigger, row.user, row.reason) == (
        "succeeded",
        "reset",
        "ada",
        "wrong prices",
    )
    assert Answer("run").code == 0
    assert effects(using) == ["shop.seed", "shop.seed"]


def test_reset_of_a_pattern_resets_what_ran(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "shop.load_a"), seed(using, "shop.load_b"), seed(using, "shop.seed")]
    run(declared[0], declared[2])
    answer = reset("shop.load_*")
    assert answer.code == 0
    assert "  shop.load_b is pending, so not done: nothing to reset.\n" in answer.out
    assert [name for name, _, _ in attempts(using)] == ["shop.load_a", "shop.load_a", "shop.seed"]


def test_reset_of_what_is_pending_says_so_and_writes_nothing(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    assert reset("shop.seed").out == "  shop.seed is pending, so not done: nothing to reset.\n"
    assert attempts(using) == []


@pytest.mark.parametrize("make", [lambda using: seed(using), held], ids=["completed", "held"])
def test_reset_without_a_terminal_wants_to_be_confirmed(
    using: str,
    declared: list[Routine],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[str], Routine],
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("yes\n"))
    declared.append(make(using))
    run(declared[0])
    before = attempts(using)
    answer = Answer("reset", "shop.*")
    assert answer.code == 2
    assert (
        f"that are done, or may have run: {declared[0].name}. Where there is no" in answer.message
    )
    assert "confirm by --noinput" in answer.message
    assert attempts(using) == before


def test_reset_of_a_failed_routine_needs_no_confirmation(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO())
    declared.append(failing(using))
    run(declared[0])
    assert Answer("reset", "shop.bad").code == 0
    assert attempts(using) == [("shop.bad", 1, "failed"), ("shop.bad", 2, "succeeded")]


@pytest.mark.parametrize(("said", "code"), [("yes", 0), (" YES ", 0), ("no", 3), ("", 3), ("y", 3)])
def test_reset_in_a_terminal_asks(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: said)
    declared.append(seed(using))
    run(declared[0])
    answer = Answer("reset", "shop.seed")
    assert answer.code == code
    assert "These are done, or may have run, and will run again:\n  [X] shop.seed  v1" in answer.out
    assert answer.message == ("Nothing was reset." if code else "")
    assert len(attempts(using)) == (1 if code else 2)


@pytest.mark.parametrize("name", ["shop.gone", ""])
def test_reset_of_an_unknown_name_is_a_usage_error(name: str, declared: list[Routine]) -> None:
    call("default")
    declared.append(seed("default"))
    answer = reset(name)
    assert answer.code == 2
    assert answer.message.startswith(f"No routine is named {name!r}")
    assert len(attempts("default")) == 1


def test_reset_of_what_is_in_memory_is_a_usage_error(declared: list[Routine]) -> None:
    declared.append(Routine(function=lambda: None, name="in_memory", scope="process"))
    answer = reset("in_memory")
    assert (answer.code, answer.message) == (
        2,
        "in_memory keeps no record (process scope): restart the process.",
    )


def test_reset_of_what_another_release_knows_more_of_is_a_usage_error(
    using: str, declared: list[Routine]
) -> None:
    run(seed(using, version=2))
    Completion.objects.using(using).create(routine="elsewhere", version=4)
    declared.append(seed(using))
    for name, state in [("shop.seed", "superseded"), ("elsewhere", "unknown")]:
        answer = reset(name)
        assert answer.code == 2
        assert answer.message.startswith(f"{name} is {state}: another release of the code")
    assert Completion.objects.using(using).count() == 2


def test_reset_of_what_runs_is_refused(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    with database(using).lock("shop.seed", 15.0) as lock:
        take(lock)
        begin(seed(using))
        answer = reset("shop.seed")
    assert answer.code == 3
    assert f"shop.seed is run now on {last(using).host} (pid {os.getpid()})." in answer.message
    assert attempts(using) == [("shop.seed", 1, "running")]


def test_reset_refuses_all_where_it_refuses_one(using: str, declared: list[Routine]) -> None:
    run(seed(using, "shop.a"), seed(using, "shop.b", version=2))
    declared += [seed(using, "shop.a"), seed(using, "shop.b")]
    assert reset("shop.*").code == 2
    assert len(attempts(using)) == 2


def test_reset_leaves_nothing_cut_off(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using, "shop.seed"))
    run(declared[0])
    assert Answer("reset", "shop.seed", "--noinput").code == 0
    [status] = statuses_of(registry.load(), declared)
    assert (str(status.state), status.is_cut_off) == ("pending", False)
    begin(declared[0])  # whose process dies
    [status] = statuses_of(registry.load(), declared)
    assert status.is_cut_off
