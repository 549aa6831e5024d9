"""``once history``: what it does, prints and ends with."""

import getpass
import re

import pytest

from once import Routine
from once.databases import unapplied
from tests.behaviour.command import Answer, call, failing
from tests.support import run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def test_history_shows_attempts_and_decisions_the_latest_first(
    using: str, declared: list[Routine]
) -> None:
    declared.append(failing(using))
    Answer("run")
    Answer("run", "--fake", "shop.bad", "--reason", "loaded by hand")
    answer = Answer("history", "shop.bad")
    assert (answer.code, answer.err) == (0, "")
    heading, faked, reason, failed, error = answer.out.splitlines()
    assert heading.partition("  in ")[0] == "shop.bad"
    assert re.match(r"   2  fake         v1  20[-\d]{8} ", faked)
    assert faked.endswith(f"  by {getpass.getuser()}")
    assert reason == "      loaded by hand"
    assert re.match(r"   1  failed       v1  20[-\d]{8} .*  in 0\.\d{3}s  on ", failed)
    assert failed.endswith("  by command")
    assert error == "      LookupError: no such currency"
    assert "Traceback" in Answer("history", "shop.bad", "-v2").out


def test_history_json_has_the_keys_of_the_contract(using: str, declared: list[Routine]) -> None:
    declared += [failing(using), seed(using, "shop.new")]
    Answer("run", "shop.bad")
    shown = Answer("history", "shop.*", "--json").json
    bad, new = shown["routines"]
    assert list(shown) == ["schema", "routines"]
    assert (new["name"], new["database"], new["attempts"]) == ("shop.new", using, [])
    [attempt] = bad["attempts"]
    assert (attempt["number"], attempt["state"], attempt["trigger"]) == (1, "failed", "command")
    assert attempt["error"].startswith("LookupError: no such currency\nTraceback")
    assert attempt["started_at"].endswith("Z")
    assert (attempt["total"], attempt["processed"]) == (None, None)


def test_history_of_what_is_in_memory_is_a_usage_error(declared: list[Routine]) -> None:
    declared.append(Routine(function=print, name="x", scope="process"))
    answer = Answer("history", "x")
    assert (answer.code, answer.message.partition(". ")[0]) == (2, "Nothing is recorded of x")


def test_history_names_the_database_of_each_of_the_same_name() -> None:
    for using in ("default", "sqlite"):
        call(using)
    out = Answer("history", "prices").out
    assert re.findall(r"^call:.*$", out, re.MULTILINE) == ["call:prices", "call:prices  in sqlite"]


def test_history_of_what_this_code_or_this_database_has_not_any_more(
    declared: list[Routine],
) -> None:
    run(failing("default", "shop.gone"))
    run(seed("sqlite"))
    declared.append(seed("default"))
    assert "no such currency" in Answer("history", "shop.gone").out
    assert "  in sqlite" in Answer("history", "shop.seed", "--database", "sqlite").out
    assert Answer("history", "shop.gone", "--database", "sqlite").code == 2


def test_database_leaves_out_what_others_record(declared: list[Routine]) -> None:
    declared += [seed("default", "a"), seed("sqlite", "b")]
    Answer("run", "b")
    [line] = Answer("status", "--database", "sqlite").out.splitlines()
    assert line.split()[:4] == ["[X]", "b", "v1", "completed"]
    assert line.endswith("  in sqlite")
    assert Answer("wait", "--database", "sqlite", "--timeout", "0").code == 0
    assert Answer("wait", "--database", "default", "--timeout", "0").code == 4
    for subcommand in ("status", "history", "wait"):
        assert Answer(subcommand, "a", "--database", "sqlite").code == 2


def test_wait_json_says_which_migrations_a_name_waits_for(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed(using))
    Answer("run")
    monkeypatch.setattr(unapplied, "names", lambda using: ["shop.0002_more"])
    answer = Answer("wait", "shop.seed", "--json", "--timeout", "0")
    assert (answer.code, answer.json["done"]) == (4, False)
    assert answer.json["unapplied"] == {using: ["shop.0002_more"]}


@pytest.mark.parametrize("state", ["done", "held", "pending"])
def test_wait_json_is_one_object_however_it_ends(
    state: str, using: str, declared: list[Routine]
) -> None:
    declared.append(failing(using, retry=False, atomic=False) if state == "held" else seed(using))
    if state != "pending":
        Answer("run")
    answer = Answer("wait", "--timeout", "0", "--json")
    assert answer.code == {"done": 0, "held": 5, "pending": 4}[state]
    assert answer.json["done"] is (state == "done")
    [routine] = answer.json["routines"]
    assert routine["state"] == {"done": "completed"}.get(state, state)
