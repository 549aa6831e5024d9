"""Items that failed: in ``once items``, ``once run --failed-items``, ``once status`` and JSON."""

import pytest
from django.core.management import call_command

from once import Routine
from once.databases import database
from once.models import FailedItem
from once.record import failed_items
from tests.behaviour.command import Answer, Terminal
from tests.support import run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


class Fill:
    """Six items, of which some are bad."""

    def __init__(self, using: str, *bad: int) -> None:
        self.using, self.bad = using, {*bad}
        self.done: list[int] = []

    def __call__(self, batch: list[int]) -> None:
        for number in batch:
            if number in self.bad:
                raise LookupError(f"no item {number}")
        self.done += batch

    def routine(self, **options: object) -> Routine:
        options = {"over": lambda: range(1, 7), "batch_size": 4, "max_errors": 5, **options}
        return seed(self.using, "shop.fill", function=self, **options)


ADVICE = (
    "2 items failed: `manage.py once items shop.fill` lists what to fix. Then `manage.py once run "
    "--failed-items shop.fill` tries again."
)


def test_run_with_failed_items_is_done_and_warns(using: str, declared: list[Routine]) -> None:
    declared.append(Fill(using, 2, 5).routine())
    answer = Answer("run")
    assert (answer.code, answer.message) == (0, "")
    assert f"    {ADVICE}\n" in answer.out
    assert answer.out.count("items failed") == 1
    again = Answer("run", "shop.fill")
    assert again.code == 0
    assert f"{ADVICE} To have it run again" in again.out


def test_status_counts_failed_items(using: str, declared: list[Routine]) -> None:
    declared += [
        Fill(using, 2, 5).routine(),
        seed(using, "shop.next", after=["shop.fill"]),
        seed(using, "shop.last", after=["shop.next"]),
    ]
    ran = Answer("run", "shop.fill")
    assert ran.code == 0, ran.message
    shown = Answer("status", "--json").json
    fill, following, last = shown["routines"]
    assert (fill["state"], fill["failed_items"], fill["message"]) == ("completed", 2, ADVICE)
    assert (following["state"], following["failed_items"]) == ("pending", 0)
    assert [each["waits_for"] for each in (following, last)] == ["shop.fill"] * 2
    assert following["message"] == f"Waits for shop.fill, which has failed items. {ADVICE}"
    out = Answer("status").out
    assert "[X] shop.fill  v1  completed" in out
    assert f"      {ADVICE}\n" in out
    planned = Answer("run", "--plan").out
    assert planned.index("Not to be run:") < planned.index("shop.next") < planned.index("shop.last")
    ran = Answer("run")
    assert ran.code == 3
    assert f"shop.next: Not tried, since shop.fill must be done before: {ADVICE}" in ran.message
    assert Answer("status", "--check").code == 3
    waited = Answer("wait", "--timeout", "0")
    assert (waited.code, "shop.next is pending and waits for shop.fill" in waited.message) == (
        4,
        True,
    )


def test_status_of_what_failed_beyond_its_limit_counts_too(
    using: str, declared: list[Routine]
) -> None:
    declared.append(Fill(using, 2, 3, 5).routine(max_errors=2))
    answer = Answer("run")
    assert answer.code == 1
    assert "Item 5 failed, after as many items as max_errors=2 admits" in answer.message
    out = Answer("status").out
    assert "(2 items failed)" in out
    assert "Item 5 failed, after as many" in out


def test_items_are_listed(using: str, declared: list[Routine]) -> None:
    declared.append(Fill(using, 2, 5).routine())
    Answer("run")
    answer = Answer("items", "shop.fill")
    heading, first, error, second, _ = answer.out.splitlines()
    assert heading.partition("  in ")[0] == "shop.fill"
    assert first.startswith("  2  in attempt 1  20")
    assert second.startswith("  5  in attempt 1  20")
    assert error == "      LookupError: no item 2"
    assert "Traceback (most recent" in Answer("items", "shop.fill", "-v2").out
    shown = Answer("items", "shop.*", "--json").json
    assert list(shown) == ["schema", "routines"]
    [routine] = shown["routines"]
    assert [routine[key] for key in ("name", "database", "version")] == ["shop.fill", using, 1]
    assert [each["item"] for each in routine["failures"]] == ["2", "5"]
    assert list(routine["failures"][0]) == ["item", "attempt", "failed_at", "error"]
    assert routine["failures"][0]["error"].startswith("LookupError: no item 2\nTraceback")
    assert routine["failures"][0]["failed_at"].endswith("Z")


def test_the_last_fifty_items_are_listed(using: str, declared: list[Routine]) -> None:
    declared.append(Fill(using).routine())
    for number in range(51):
        FailedItem.objects.using(using).create(
            routine="shop.fill", version=1, item=f"i{number}", number=1, error="x"
        )
    out = Answer("items", "shop.fill").out
    assert ("  i0  " in out, "  i1  " in out, "  i50  " in out) == (False, True, True)
    assert out.endswith("  Only the last 50 are shown. With --json all are.\n")
    [routine] = Answer("items", "shop.fill", "--json").json["routines"]
    assert len(routine["failures"]) == 51


def test_items_of_a_routine_without_any(using: str, declared: list[Routine]) -> None:
    declared += [Fill(using).routine(), seed(using)]
    assert Answer("items", "shop.fill").out.splitlines()[1:] == ["  No failed items."]
    answer = Answer("items", "shop.seed")
    assert (answer.code, answer.message) == (
        2,
        "shop.seed does not go through items. Name routines that are declared with over=.",
    )
    assert Answer("items", "shop.fyll").code == 2


def test_failed_items_are_tried_each_once(using: str, declared: list[Routine]) -> None:
    fill = Fill(using, 2, 5)
    declared += [fill.routine(), seed(using, "shop.next", after=["shop.fill"])]
    Answer("run", "shop.fill")
    fill.bad = {5}
    answer = Answer("run", "--failed-items", "shop.fill")
    assert answer.code == 1
    assert answer.message.startswith(
        "shop.fill failed. Of 2 failed items, 1 failed again. Item 5: LookupError: no item 5. "
        "Items that did not fail are done."
    )
    assert "  Trying failed items of shop.fill...\n" in answer.out
    assert "    5  in attempt 2  20" in answer.out
    assert "s on " not in Answer("status").out  # which took that long for its failed item
    assert sorted(fill.done) == [1, 2, 3, 4, 6]
    assert Answer("status", "--json").json["routines"][0]["state"] == "completed"
    fill.bad = set()
    answer = Answer("run", "--failed-items", "shop.fill", "--json")
    assert (answer.code, answer.json["routines"][0]["outcome"]) == (0, "ran")
    assert sorted(fill.done) == [*range(1, 7)]
    answer = Answer("run", "--failed-items", "shop.fill")
    assert (answer.code, answer.out) == (0, "  shop.fill has no failed items.\n")
    answer = Answer("run", "--failed-items", "shop.fill", "--json")
    assert answer.json["routines"][0]["outcome"] == "already_done"
    assert sorted(fill.done) == [*range(1, 7)]
    history = Answer("history", "shop.fill").out
    assert history.count("by failed items") == 2
    assert Answer("run").code == 0


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_failed_items_of_what_is_not_completed_wait(
    using: str, declared: list[Routine], state: str
) -> None:
    fill = Fill(using, 2, 3)
    declared.append(fill.routine(max_errors=1))
    if state == "failed":
        Answer("run")
    answer = Answer("run", "--failed-items", "shop.fill")
    assert (answer.code, answer.message) == (
        3,
        f"shop.fill is {state}. Its failed items are tried once it is completed: call `manage.py "
        "once run shop.fill` first.",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--failed-items needs the NAME of each routine."),
        (["shop.seed"], "shop.seed does not go through items."),
        (["shop.fill", "--fake"], "--failed-items tries items and nothing else. Leave out --fake"),
        (["shop.fill", "--plan"], "--failed-items tries items and nothing else. Leave out --plan"),
    ],
)
def test_failed_items_are_asked_for_by_name_alone(
    using: str, declared: list[Routine], arguments: list[str], message: str
) -> None:
    declared += [Fill(using).routine(), seed(using)]
    answer = Answer("run", "--failed-items", *arguments)
    assert (answer.code, answer.message.startswith(message)) == (2, True)


def test_failed_items_that_another_process_tries_are_left_out(
    using: str, declared: list[Routine]
) -> None:
    declared.append(Fill(using, 2).routine())
    Answer("run")
    with database(using).lock("shop.fill", 15) as lock:
        take(lock)
        answer = Answer("run", "--failed-items", "shop.fill", "--no-wait")
    assert (answer.code, "shop.fill is run by" in answer.message) == (3, True)


def test_output_of_failed_items_fits_a_terminal(using: str, declared: list[Routine]) -> None:
    declared.append(Fill(using).routine())
    FailedItem.objects.using(using).create(
        routine="shop.fill", version=1, item="a\x1b[2J\nb", number=1, error="x\x1b[2J"
    )
    terminal = Terminal()
    call_command("once", "items", "shop.fill", stdout=terminal)
    assert "\x1b[2J" not in terminal.getvalue()
    assert "a\\x1b[2J\\nb" in terminal.getvalue()


def test_failed_items_are_counted_for_the_record_of_this_code(using: str) -> None:
    run(Fill(using, 2).routine())
    assert failed_items.counts([Fill(using).routine(version=2)]) == {}
    assert failed_items.counts([seed(using, "shop.fill")]) == {}
