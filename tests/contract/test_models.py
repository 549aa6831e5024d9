"""What the tables of the record refuse, whoever writes to them."""

from typing import Any

import pytest
from django.core.management import call_command
from django.db import DataError, IntegrityError
from django.db.models import UniqueConstraint

from once.models import Attempt, Completion, Now, State

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

ATTEMPT: dict[str, Any] = {
    "routine": "shop.seed",
    "number": 1,
    "version": 1,
    "key": "0" * 32,
    "trigger": "test",
    "pid": 7,
}


def test_migrations_say_what_the_models_say() -> None:
    call_command("makemigrations", "once", check_changes=True, dry_run=True)


def test_second_completion_is_refused(using: str) -> None:
    manager = Completion.objects.using(using)
    manager.create(routine="shop.seed", version=1)
    with pytest.raises(IntegrityError):
        manager.create(routine="shop.seed", version=1)
    for other in ({"version": 2}, {"scope_key": "x"}, {"routine": "shop.other"}):
        manager.create(**{"routine": "shop.seed", "version": 1, **other})


def test_completion_of_nothing_is_refused(using: str) -> None:
    with pytest.raises(IntegrityError):
        Completion.objects.using(using).create(routine="", version=1)


@pytest.mark.parametrize(
    "other", [{}, {"version": 2}, {"scope_key": "x"}, {"key": "1" * 32}], ids=str
)
def test_second_attempt_of_a_number_is_refused(using: str, other: dict[str, Any]) -> None:
    manager = Attempt.objects.using(using)
    manager.create(**ATTEMPT)
    with pytest.raises(IntegrityError):
        manager.create(**{**ATTEMPT, **other})
    manager.create(**{**ATTEMPT, "number": 2})
    manager.create(**{**ATTEMPT, "routine": "shop.other"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 0},
        {"number": -1},
        {"state": "unknown", "finished_at": Now()},
        {"state": "unknown"},
        {"state": "running", "finished_at": Now()},
        *({"state": state.value} for state in State if state is not State.RUNNING),
    ],
    ids=str,
)
def test_impossible_attempt_is_refused(using: str, wrong: dict[str, Any]) -> None:
    with pytest.raises((IntegrityError, DataError)):  # MySQL has types without a sign
        Attempt.objects.using(using).create(**{**ATTEMPT, **wrong})


@pytest.mark.parametrize("state", State)
def test_possible_attempt_is_accepted(using: str, state: State) -> None:
    finished_at = None if state is State.RUNNING else Now()
    made = Attempt.objects.using(using).create(
        **{**ATTEMPT, "state": state, "finished_at": finished_at}
    )
    made.refresh_from_db()
    assert made.started_at is not None
    assert (made.finished_at is None) is (state is State.RUNNING)


@pytest.mark.parametrize("model", [Attempt, Completion])
def test_column_of_a_unique_constraint_is_never_null(
    using: str, model: type[Attempt] | type[Completion]
) -> None:
    unique = [one for one in model._meta.constraints if isinstance(one, UniqueConstraint)]
    columns = {name for one in unique for name in one.fields}
    assert columns
    values = ATTEMPT if model is Attempt else {"routine": "shop.seed", "version": 1}
    for column in columns:
        with pytest.raises(IntegrityError):
            model._default_manager.using(using).create(**{**values, column: None})


def test_rows_say_what_they_are() -> None:
    assert str(Completion(routine="shop.seed", version=2)) == "shop.seed v2"
    assert str(Completion(routine="shop.seed", version=2, scope_key="x")) == "shop.seed v2 x"
    assert str(Attempt(**ATTEMPT)) == "shop.seed v1 attempt 1"
