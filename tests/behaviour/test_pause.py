"""``once pause``, ``resume`` and ``set``: what they do, print and end with."""

import getpass
from collections.abc import Sequence
from functools import partial

import pytest

from once import Routine
from once.models import Wish
from tests.behaviour.command import Answer, call, held
from tests.support import beside, last, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture(autouse=True)
def _ada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")


def batched(using: str, name: str = "shop.fill", **options: object) -> Routine:
    return seed(
        using, name, function=lambda batch: None, over=lambda: [1, 2, 3], batch_size=2, **options
    )


def test_paused_is_a_state_everywhere(using: str, declared: list[Routine]) -> None:
    declared += [batched(using), seed(using, "shop.next", after=["shop.fill"])]
    answer = Answer("pause", "shop.fill", "--reason", "peak hours")
    assert (answer.code, answer.out) == (
        0,
        "  shop.fill is paused: no process takes it up until `manage.py once resume shop.fill`.\n",
    )
    said = "Paused by ada (peak hours). `manage.py once resume shop.fill` has it go on."
    shown = Answer("status")
    assert "[ ] shop.fill  v1  paused" in shown.out
    assert said in shown.out
    assert "Waits for shop.fill, which is paused." in shown.out
    checked = Answer("status", "--check")
    assert checked.code == 5
    assert checked.message == (
        "Not done: shop.fill (paused), shop.next (pending). Next: `manage.py once run`, once a "
        "person has decided about what is held or paused."
    )
    planned = Answer("run", "--plan")
    assert planned.out.index("Not to be run") < planned.out.index("shop.fill")
    ran = Answer("run")
    assert (ran.code, said in ran.message) == (5, True)
    waited = Answer("wait")
    assert (waited.code, waited.message) == (5, f"shop.fill: {said}")
    assert Answer("status", "--json").json["counts"] == {"paused": 1, "pending": 1}
    resumed = Answer("resume", "shop.fill")
    assert (resumed.code, resumed.out) == (
        0,
        "  shop.fill is resumed: the next `manage.py once run` takes it up, and so do processes "
        "that look for work (`once work`, and servers that run it).\n",
    )
    assert Answer("run").code == 0


def test_history_shows_wishes_among_attempts(using: str, declared: list[Routine]) -> None:
    declared.append(batched(using))
    Answer("pause", "shop.fill", "--reason", "peak hours")
    Answer("resume", "shop.fill")
    Answer("set", "shop.fill", "batch_size=200", "rest=0.5", "--reason", "slow disk")
    run(declared[0])
    answer = Answer("history", "shop.fill")
    assert "set batch_size=200 rest=0.5" in answer.out
    order = [answer.out.index(word) for word in ("succeeded", "set batch", "resume", "pause")]
    assert order == sorted(order)
    assert answer.out.count("by ada") == 3
    assert "      slow disk\n" in answer.out
    [routine] = Answer("history", "shop.fill", "--json").json["routines"]
    assert [each["kind"] for each in routine["wishes"]] == ["set", "resume", "pause"]
    assert routine["wishes"][0]["batch_size"] == 200


def test_set_is_shown_with_the_person(using: str, declared: list[Routine]) -> None:
    declared.append(batched(using))
    answer = Answer("set", "shop.fill", "batch_size=200", "rest=0.5")
    assert (answer.code, answer.out) == (
        0,
        "  shop.fill has batch_size=200, rest=0.5, as soon as it runs. It ends with version 1.\n",
    )
    assert "batch_size=200 rest=0.5 set by ada" in Answer("status").out
    [status] = Answer("status", "--json").json["routines"]
    assert status["pace"] == {"batch_size": 200, "rest": 0.5, "batch_seconds": None}
    assert status["set_by"] == "ada"
    Answer("set", "shop.fill", "batch_size=", "rest=")
    assert "set by" not in Answer("status").out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["shop.fill"], "Give the NAME of each routine, and what to set"),
        (["batch_size=2"], "Give the NAME of each routine, and what to set"),
        (["shop.fill", "version=2"], "version cannot be set. Set batch_size or rest or batch_se"),
        (["shop.fill", "rest", "=", "3"], "'=' sets nothing. Write OPTION=VALUE, without spaces."),
        (["shop.fill", "batch_size=0"], "batch_size=0 is not an integer from 1"),
        (["shop.fill", "batch_size=1.5"], "batch_size=1.5: '1.5' is no whole number."),
        (["shop.fill", "rest=-1"], "rest=-1.0 is not a number of seconds from 0"),
        (["shop.fill", "rest=nan"], "rest=nan is not a number of seconds"),
        (["shop.fill", "rest=long"], "rest=long: 'long' is no decimal number."),
        (["shop.seed", "rest=1"], "shop.seed has no batches, and so no pace: it is atomic."),
        (["shop.gone", "rest=1"], "No routine is named 'shop.gone'"),
    ],
)
def test_set_of_what_cannot_be(
    using: str, declared: list[Routine], arguments: Sequence[str], problem: str
) -> None:
    declared += [batched(using), seed(using)]
    answer = Answer("set", *arguments)
    assert answer.code == 2
    assert problem in answer.message
    assert not Wish.objects.using(using).exists()


def test_pattern_means_what_can_be_paused(using: str, declared: list[Routine]) -> None:
    declared += [
        batched(using),
        Routine(function=lambda: None, name="shop.memory", scope="process"),
    ]
    assert Answer("pause", "shop.*").code == 0
    answer = Answer("pause", "shop.memory")
    assert answer.code == 2
    assert answer.message == ("shop.memory keeps no record (process scope): restart the process.")


def test_command_of_once_call_is_not_paused(using: str, declared: list[Routine]) -> None:
    call(using)
    answer = Answer("pause", "prices")
    assert answer.code == 2
    assert answer.message.endswith("is a command of `manage.py once call`, and no routine.")


def test_again_is_said_and_changes_nothing(using: str, declared: list[Routine]) -> None:
    declared.append(batched(using))
    assert Answer("resume", "shop.fill").out == "  shop.fill is not paused.\n"
    Answer("pause", "shop.fill")
    answer = Answer("pause", "shop.fill")
    assert (answer.code, answer.out) == (0, "  shop.fill is paused already.\n")
    assert Wish.objects.using(using).count() == 1


@pytest.mark.parametrize("using", ["default"])  # SQLite's one writer is the batch in hand
def test_running_routine_says_when_it_stops(using: str, declared: list[Routine]) -> None:
    said: list[str] = []

    def body(batch: list[int]) -> None:
        if 1 in batch:
            for command in (["pause", "shop.fill"], ["status"]):
                with beside(partial(Answer, *command)) as answered:
                    said.append(answered.result().out)

    declared.append(seed(using, "shop.fill", function=body, over=lambda: [1, 2], batch_size=1))
    answer = Answer("run")
    assert answer.code == 5
    assert "shop.fill is paused: it stops on " in said[0]
    assert "after the batch in hand." in said[0]
    assert "running" in said[1]
    assert "It stops after the batch in hand. Paused by ada." in said[1]


def test_held_routine_says_both(using: str, declared: list[Routine]) -> None:
    declared.append(held(using))
    assert Answer("pause", "shop.held").code == 0
    shown = Answer("status").out
    assert "v1  held" in shown
    assert "A higher version waits. Paused by ada." in shown
    assert last(using).state == "failed"


def test_done_routine_is_not_paused(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    run(declared[0])
    answer = Answer("pause", "shop.seed")
    assert (answer.code, answer.out) == (
        0,
        "  shop.seed is completed: there is nothing to pause.\n",
    )
    assert not Wish.objects.using(using).exists()


def test_paused_routine_can_be_recorded_as_done(using: str, declared: list[Routine]) -> None:
    declared.append(batched(using))
    Answer("pause", "shop.fill")
    assert Answer("run", "--fake", "shop.fill").code == 0
    assert Answer("status", "--check").code == 0
