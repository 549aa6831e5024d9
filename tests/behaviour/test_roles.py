"""Routines of a role: which process takes them, and what the command says of the others."""

import pytest
from django.test import override_settings

from once import Routine
from once.results import Outcome, Reason
from once.status import text
from once.status.state import RoutineState, Status
from tests.behaviour.command import Answer, held
from tests.support import attempts, effects, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def of_worker(using: str, name: str = "shop.heavy", **options: object) -> Routine:
    return seed(using, name, role="worker", **options)


@pytest.mark.parametrize(
    ("role", "ran"),
    [
        (None, ["any", "heavy", "web"]),
        ("", ["any"]),
        ("worker", ["any", "heavy"]),
        ("web", ["any", "web"]),
    ],
)
def test_process_takes_the_routines_of_its_role_and_those_without(
    using: str, role: str | None, ran: list[str]
) -> None:
    results = run(
        seed(using, "any"), of_worker(using, "heavy"), seed(using, "web", role="web"), role=role
    )
    assert effects(using) == ran
    left = [each for each in results if each.routine.name not in ran]
    assert {(each.outcome, each.reason) for each in left} <= {(Outcome.SKIPPED, Reason.OTHER_ROLE)}


def test_what_comes_after_a_routine_of_another_role_is_left_until_that_is_done(using: str) -> None:
    first = of_worker(using, "a", retry=False)
    second, third = seed(using, "b", after=[first]), seed(using, "c", after=["b"])
    results = run(first, second, third, seed(using, "d"), role="")
    assert [each.reason for each in results] == [Reason.OTHER_ROLE] * 3 + [None]
    assert [each.message for each in results] == [
        "Left to processes with the role 'worker', such as `ONCE_ROLE=worker manage.py once "
        "work`. To run it here, call `manage.py once run a`.",
        "Not tried, since a must be done before, by the role 'worker'.",
        "Not tried, since b must be done before.",
        "",
    ]
    run(first, role="worker")
    assert [each.is_done for each in run(first, second, third, role="")] == [True] * 3
    assert effects(using) == ["a", "b", "c", "d"]


def test_failure_and_deadline_elsewhere_are_no_affair_of_this_role(using: str) -> None:
    def fail() -> None:
        raise LookupError("no such currency")

    failing = seed(using, "a", function=fail, role="worker", atomic=False, retry=False)
    assert run(failing, role="worker")[0].reason is Reason.FAILED
    assert run(failing, role="worker")[0].reason is Reason.HELD
    assert run(failing, role="")[0].reason is Reason.OTHER_ROLE


def test_run_without_a_role_leaves_others_out_with_a_line_and_succeeds(
    using: str, declared: list[Routine]
) -> None:
    declared += [seed(using, "a"), of_worker(using, startup=False), of_worker(using, "heavier")]
    answer = Answer("run")
    assert (answer.code, answer.err) == (0, "")
    assert effects(using) == ["a"]
    assert answer.out.count("Left to processes with the role 'worker'") == 2
    assert (
        "  shop.heavy: Left to processes with the role 'worker', such as `ONCE_ROLE" in answer.out
    )
    again = Answer("run")
    assert again.code == 0
    assert again.out.startswith("  No routines to run.\n  shop.heavy: Left to ")
    shown = Answer("run", "--json").json
    assert [(each["role"], each["outcome"]) for each in shown["routines"]] == [
        (None, "already_done"),
        ("worker", "skipped"),
        ("worker", "skipped"),
    ]
    assert shown["done"] is False


def test_run_leaves_out_what_a_person_decides_about_for_another_role(
    using: str, declared: list[Routine]
) -> None:
    routine = held(using)
    declared.append(routine)
    object.__setattr__(routine, "role", "worker")
    assert Answer("run").code == 0
    assert Answer("run", routine.name).code == 5
    assert Answer("status", "--check").code == 5


def test_run_with_a_role_takes_it(using: str, declared: list[Routine]) -> None:
    declared.append(of_worker(using, startup=False))
    with override_settings(ONCE_ROLE="worker"):
        assert Answer("run").code == 0
    assert effects(using) == ["shop.heavy"]


def test_name_overrides_the_role_of_it_and_of_its_predecessors(
    using: str, declared: list[Routine]
) -> None:
    declared += [of_worker(using, "a"), seed(using, "b", role="web", after=["a"])]
    assert Answer("run", "b").code == 0
    assert effects(using) == ["a", "b"]


def test_fake_overrides_the_role(using: str, declared: list[Routine]) -> None:
    declared.append(of_worker(using))
    assert Answer("run", "--fake", "shop.heavy").code == 0
    assert attempts(using) == [("shop.heavy", 1, "succeeded")]


def test_failure_of_this_role_decides_the_exit_code(using: str, declared: list[Routine]) -> None:
    def fail() -> None:
        raise LookupError("no such currency")

    declared += [of_worker(using), seed(using, "shop.bad", function=fail)]
    answer = Answer("run")
    assert answer.code == 1
    assert "shop.heavy" not in answer.message


def test_plan_says_what_is_left_to_another_role(using: str, declared: list[Routine]) -> None:
    declared += [of_worker(using), seed(using, "b", after=["shop.heavy"]), seed(using, "c")]
    due, _, rest = Answer("run", "--plan").out.partition("Not to be run:")
    assert "c  " in due
    assert "shop.heavy" not in due
    assert "role worker" in rest
    assert "Left to processes with the role 'worker'" in rest
    assert "Not tried, since shop.heavy must be done before" in rest
    assert "Not to be run" not in Answer("run", "--plan", "b").out
    planned = Answer("run", "--plan", "--json").json["routines"]
    assert [each["role"] for each in planned] == ["worker", None, None]
    assert planned[0]["message"].startswith("Left to processes")


def test_status_shows_the_role(using: str, declared: list[Routine]) -> None:
    declared += [of_worker(using), seed(using, "b")]
    assert "  role worker" in Answer("status").out
    assert [each["role"] for each in Answer("status", "--json").json["routines"]] == [
        "worker",
        None,
    ]


@pytest.mark.parametrize(
    ("startup", "role", "said"),
    [
        (True, None, "The next `manage.py once run` or server start runs it."),
        (False, None, "Only `manage.py once run` runs it, or `manage.py once work`."),
        (
            True,
            "worker",
            "The next `manage.py once run shop.a` or server start with the role worker runs it.",
        ),
        (
            False,
            "worker",
            "Only `manage.py once run shop.a` runs it, or `manage.py once work` with the role "
            "worker.",
        ),
    ],
)
def test_next_step_names_the_role(startup: bool, role: str | None, said: str) -> None:
    status = Status(name="shop.a", state=RoutineState.PENDING, kind="atomic", role=role)
    assert text.next_step(status, runs_at_startup=startup) == said
