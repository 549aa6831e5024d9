"""Run now: when a person may ask for it in the admin, what is shown of it, and what it does."""

from typing import Any

import pytest
from django.test import Client

from once import Routine
from once.models import Wish
from once.record import wishes, workers
from tests.behaviour.command import Answer
from tests.behaviour.test_admin import LIST, decide, elsewhere, failing, login, page, text
from tests.behaviour.test_failed_items import Fill
from tests.behaviour.test_work import Looks
from tests.support import attempts, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

LABEL = '<option value="run">Run now</option>'
WANTED = "A person wants it run now: `manage.py once work` takes it at its next look."


@pytest.fixture
def staff() -> Client:
    return login("view_routine", "run_routine")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def backing_off(using: str, declared: list[Routine], **options: Any) -> None:
    declared.append(failing(using, **options))
    run(declared[0])


def test_routine_that_failed_is_run_now_by_a_worker(
    using: str, staff: Client, declared: list[Routine], looks: Looks
) -> None:
    backing_off(using, declared)
    looks.between = [lambda: decide(staff, "run", "shop.bad", using=using, seen="failed"), int, int]
    assert Answer("work").code == 0
    assert attempts(using) == [("shop.bad", 1, "failed"), ("shop.bad", 2, "failed")]
    [made] = Wish.objects.using(using).all()
    assert (made.kind, made.user, made.reason, made.run_after) == ("run", "ada", "because", 1)
    assert " run " in page(staff, "shop.bad", using)
    shown = Answer("history", "shop.bad", "--json").json["routines"][0]["wishes"]
    assert [(each["kind"], each["user"], each["run_after"]) for each in shown] == [
        ("run", "ada", 1)
    ]


def test_failed_items_of_a_completed_routine_are_tried_now_and_nothing_else(
    using: str, staff: Client, declared: list[Routine], looks: Looks
) -> None:
    fill = Fill(using, 2, 5)
    declared.append(fill.routine())
    run(declared[0])
    fill.bad, fill.done = {5}, []
    looks.between = [
        lambda: decide(staff, "run", "shop.fill", using=using, seen="completed"),
        int,
        int,
    ]
    assert Answer("work").code == 0
    assert fill.done == [2]
    assert [state for *_, state in attempts(using)] == ["succeeded", "failed"]


def test_action_is_absent_without_a_worker_of_the_role(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    backing_off(using, declared, role="heavy")
    workers.tell(using, "worker")
    assert LABEL not in staff.get(LIST).content.decode()
    assert "Run now" not in page(staff, "shop.bad", using)
    said = text(decide(staff, "run", "shop.bad", using=using, seen="failed"))
    assert (
        "No `manage.py once work` with the role heavy has looked for work within 30 s: none runs, "
        "or each is busy. Start one, or call `manage.py once run shop.bad`." in said
    )
    assert not Wish.objects.using(using).exists()
    workers.tell(using, "heavy")
    assert LABEL in staff.get(LIST).content.decode()
    assert "Run now" in page(staff, "shop.bad", using)


def test_worker_of_any_role_runs_what_has_none(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    backing_off(using, declared)
    assert [each["has_worker"] for each in Answer("status", "--json").json["routines"]] == [False]
    workers.tell(using, "heavy")
    assert [each["has_worker"] for each in Answer("status", "--json").json["routines"]] == [True]
    assert "Run now" in page(staff, "shop.bad", using)


def test_person_confirms_what_a_run_now_does(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    backing_off(using, declared)
    declared.append(Fill(using, 2, 5).routine())
    run(declared[1])
    workers.tell(using, "worker")
    said = text(decide(staff, "run", "shop.bad", "shop.fill", using=using))
    assert "It goes on where it stands. If it fails again, its delay doubles." in said
    assert "Only its failed items (2) are tried, each alone." in said


def test_run_that_is_wanted_is_shown_and_wanted_once(
    using: str, staff: Client, declared: list[Routine]
) -> None:
    backing_off(using, declared)
    workers.tell(using, "worker")
    said = text(decide(staff, "run", "shop.bad", using=using, seen="failed"))
    assert "“shop.bad” is to run now: `manage.py once work` takes it at its next look." in said
    [shown] = Answer("status", "--json").json["routines"]
    assert (shown["wanted"], shown["retry_at"], shown["message"]) == (True, None, WANTED)
    assert WANTED in Answer("status").out
    assert staff.get(LIST).context["seconds"] == 10  # until it runs
    again = text(decide(staff, "run", "shop.bad", using=using, seen="failed"))
    assert "Left as it is: shop.bad is to run now already." in again
    assert Wish.objects.using(using).count() == 1


def test_person_without_the_permission_does_not_see_the_action(
    using: str, declared: list[Routine]
) -> None:
    backing_off(using, declared)
    workers.tell(using, "worker")
    other = login("view_routine", "pause_routine", name="bob")
    assert "Run now" not in page(other, "shop.bad", using)
    assert decide(other, "run", "shop.bad", using=using, seen="failed").status_code == 403


def held(using: str, declared: list[Routine]) -> str:
    backing_off(using, declared, atomic=False, retry=False)
    return "is held. Reset it first: manage.py once reset shop.bad."


def paused(using: str, declared: list[Routine]) -> str:
    backing_off(using, declared)
    wishes.add(using, "shop.bad", Wish.Kind.PAUSE, user="ada", reason="")
    return "is paused. Resume it first: manage.py once resume shop.bad."


def completed(using: str, declared: list[Routine]) -> str:
    declared.append(seed(using, "shop.bad"))
    run(declared[0])
    return "is completed. To have it run again, reset it: manage.py once reset shop.bad."


def waiting(using: str, declared: list[Routine]) -> str:
    before = failing(using, "shop.first")
    declared += [before, seed(using, "shop.bad", after=[before])]
    run(before)
    return "is pending. Waits for shop.first, which failed."


def pending(using: str, declared: list[Routine]) -> str:
    declared.append(seed(using, "shop.bad"))
    return "is pending: manage.py once work takes it up by itself."


def superseded(using: str, declared: list[Routine]) -> str:
    declared.append(seed(using, "shop.bad"))
    run(seed(using, "shop.bad", version=2))
    return "is superseded: another release runs it."


@pytest.mark.parametrize("stand", [held, paused, completed, waiting, pending, superseded])
def test_run_now_names_what_is_to_be_done_instead(
    stand: object, using: str, staff: Client, declared: list[Routine]
) -> None:
    assert callable(stand)
    why = stand(using, declared)
    workers.tell(using, "worker")
    assert f"shop.bad {why}" in text(decide(staff, "run", "shop.bad", using=using))
    assert "Run now" not in page(staff, "shop.bad", using)


def test_routine_that_runs_is_not_run_now(staff: Client, declared: list[Routine]) -> None:
    declared.append(seed("default"))
    workers.tell("default", "worker")
    with elsewhere(declared[0]):
        said = text(decide(staff, "run", "shop.seed"))
    assert "shop.seed is run now on " in said
