"""``once run --dry-run``: what it prints and ends with."""

import re
from typing import Any

import pytest

from once import Routine
from tests.behaviour.command import Answer, failing, failing_at
from tests.support import attempts, effects, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def batched(using: str, **options: Any) -> Routine:
    return failing_at(using, 99, **options)


def test_dry_run_says_what_it_did_and_what_it_cannot_undo(
    using: str, declared: list[Routine]
) -> None:
    declared += [batched(using), seed(using)]
    answer = Answer("run", "--dry-run", "shop.fill")
    assert (answer.code, answer.err) == (0, "")
    assert re.search(
        r"^  Tried shop\.fill with 2 items: \d+\.\d{3}s, \d+\.\d{3} ms an item, 0 statements\.\n"
        r"  Rows inserted, updated and deleted: 0\.\n"
        r"  Left: 5 items, about 0s\.\n"
        r"  Rolled back, and recorded as nothing\. A rollback does not undo numbers taken from "
        r"sequences, nor effects outside of this database: e-mails, requests, files, caches\. "
        r"Hooks of on_commit did not run\.",
        answer.out,
    )
    assert ": 0.0" in Answer("run", "--dry-run", "shop.seed").out
    assert "with 4 items" in Answer("run", "--dry-run", "--limit=4", "shop.fill").out
    assert (attempts(using), effects(using)) == ([], [])


def test_dry_run_of_an_atomic_routine_has_no_items(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    answer = Answer("run", "--dry-run", "shop.seed")
    assert re.search(r"Tried shop\.seed: \d+\.\d{3}s, 1 statement\.", answer.out)
    assert "deleted: 1" in answer.out
    assert "Left:" not in answer.out


def test_dry_run_of_what_exists_already_calls_nothing(using: str, declared: list[Routine]) -> None:
    """As a run would, which records that."""
    answers = [True, False]
    declared.append(seed(using, done_if=lambda: answers.pop(0)))
    answer = Answer("run", "--dry-run", "shop.seed")
    assert answer.code == 3
    assert "done_if= of shop.seed says that its effects exist" in answer.message
    assert "1 statement." in Answer("run", "--dry-run", "shop.seed").out
    assert (answers, attempts(using), effects(using)) == ([], [], [])


def test_dry_run_in_json(using: str, declared: list[Routine]) -> None:
    declared.append(batched(using))
    shown = Answer("run", "--dry-run", "--json", "shop.fill").json
    seconds = shown.pop("seconds")
    assert shown.pop("seconds_per_item") == pytest.approx(seconds / 2)
    assert shown.pop("seconds_left") == pytest.approx(seconds / 2 * 5)
    by_table = shown.pop("rows_by_table")
    assert by_table in (None, {})
    assert shown == {
        "schema": 1,
        "routine": "shop.fill",
        "database": using,
        "items": 2,
        "items_left": 5,
        "statements": 0,
        "rows": 0,
        "error": None,
    }


def test_dry_run_that_fails_names_the_items(using: str, declared: list[Routine]) -> None:
    declared.append(failing_at(using, 2))
    answer = Answer("run", "--dry-run", "shop.fill")
    assert answer.code == 1
    assert answer.message == (
        "shop.fill failed, was rolled back and is recorded as nothing. "
        "LookupError: no such item, at items up to 2. Fix the cause, and run this again."
    )
    assert "Traceback" in answer.err
    shown = Answer("run", "--dry-run", "--json", "shop.fill")
    assert shown.code == 1
    assert shown.json["error"].startswith("LookupError: no such item, at items up to 2\n")
    assert attempts(using) == []


def test_dry_run_of_what_is_behind_another_routine(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"])]
    answer = Answer("run", "--dry-run", "b")
    assert answer.code == 3
    assert answer.message.startswith("Not tried, since a must be done before.")


def test_dry_run_of_what_is_done(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    run(*declared)
    assert Answer("run", "--dry-run", "shop.seed").code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry-run"], "--dry-run needs the NAME of one routine, not 0."),
        (["--dry-run", "shop.seed", "shop.fill"], "NAME of one routine, not 2."),
        (["--dry-run", "--plan", "shop.seed"], "records nothing. Leave out --plan."),
        (["--dry-run", "--fake", "--keep-going", "shop.seed"], "out --fake, --keep-going."),
        (["--dry-run", "--limit", "3", "shop.seed"], "shop.seed has no batches."),
        (["--limit", "3", "shop.fill"], "--limit says how many items --dry-run tries."),
        (["--dry-run", "shop.mail"], "atomic=False"),
        (["--dry-run", "shop.gone"], "No routine is named 'shop.gone'"),
    ],
)
def test_dry_run_of_what_it_cannot_try_is_a_usage_error(
    arguments: list[str], message: str, using: str, declared: list[Routine]
) -> None:
    declared += [seed(using), batched(using), failing(using, "shop.mail", atomic=False)]
    answer = Answer("run", *arguments)
    assert answer.code == 2
    assert message in answer.message
    assert attempts(using) == []
