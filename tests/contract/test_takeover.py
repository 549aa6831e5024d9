"""Attempts that lost their right to commit: what is recorded, said, and done next."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from once import Routine, Run, signals
from once.exceptions import LockLost
from once.models import Anchor, Attempt
from once.results import Outcome, Result
from tests.shop.models import Effect
from tests.support import attempts, begin, effects, receiving, rows, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def routine_of(kind: str, using: str, body: Callable[[Run], None], **options: Any) -> Routine:
    def batch(items: list[int], run: Run) -> None:
        body(run)

    kinds: dict[str, dict[str, Any]] = {
        "atomic": {"function": body},
        "batched": {"function": batch, "over": lambda: [1]},
        "external": {"function": body, "atomic": False},
    }
    return seed(using, **kinds[kind], **options)


def failing_first(using: str) -> Callable[[Run], None]:
    def body(run: Run) -> None:
        if run.attempt == 1:
            raise LookupError("the session was ended")
        Effect.objects.using(using).create(name=f"by {run.attempt}")

    return body


def claiming(routine: Routine) -> Callable[..., None]:
    """A receiver in which a successor claims the next attempt, before the first body."""

    def claim(attempt: Attempt, **kwargs: Any) -> None:
        if attempt.number == 1:
            begin(routine)

    return claim


@pytest.mark.parametrize("kind", ["atomic", "batched", "external"])
def test_attempt_that_was_taken_over_is_lost_and_its_process_goes_on(using: str, kind: str) -> None:
    routine = routine_of(kind, using, failing_first(using))
    told: list[Result] = []
    with (
        receiving(signals.attempt_started, claiming(routine)),
        receiving(signals.attempt_finished, lambda result, **_: told.append(result)),
    ):
        (result,) = run(routine)
    assert result.outcome is Outcome.RAN, result.message
    assert [state for _, _, state in attempts(using)] == ["lost", "lost", "succeeded"]
    assert effects(using) == ["by 3"]
    assert told[0].reason != "failed"
    assert "lost its right to commit, because another process took over" in told[0].message


@pytest.mark.parametrize("kind", ["atomic", "batched", "external"])
def test_attempt_without_retry_that_was_taken_over_is_held(using: str, kind: str) -> None:
    routine = routine_of(kind, using, failing_first(using), retry=False)
    with receiving(signals.attempt_started, claiming(routine)):
        (result,) = run(routine)
    assert result.reason == "held"
    assert effects(using) == []


@pytest.mark.parametrize("kind", ["atomic", "batched"])
def test_body_whose_lock_was_taken_from_it_is_lost(using: str, kind: str) -> None:
    """So that the next attempt has twice the time."""

    def body(run: Run) -> None:
        if run.attempt == 1:
            raise LockLost("no answer")

    (result,) = run(routine_of(kind, using, body))
    assert result.outcome is Outcome.RAN
    assert [state for _, _, state in attempts(using)] == ["lost", "succeeded"]


def test_row_that_was_deleted_is_named_as_the_cause(using: str) -> None:
    told: list[Result] = []

    def delete(attempt: Attempt, **kwargs: Any) -> None:
        if not told:
            Anchor.objects.using(using).filter(attempt=attempt.pk).delete()
            attempt.delete(using=using, keep_parents=True)
            attempt.pk = 1_000_000

    with (
        receiving(signals.attempt_started, delete),
        receiving(signals.attempt_finished, lambda result, **_: told.append(result)),
    ):
        (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert "is gone, and its right to commit: the row was deleted" in told[0].message
    assert "took over" not in told[0].message


SIGHTS = {
    "none": ["SET search_path TO pg_catalog"],
    "others": [
        "CREATE TEMPORARY TABLE once_completion (LIKE once_completion INCLUDING ALL)",
        "CREATE TEMPORARY TABLE once_attempt (LIKE once_attempt INCLUDING ALL)",
    ],
}


@pytest.mark.postgresql
@pytest.mark.parametrize("statements", SIGHTS.values(), ids=SIGHTS)
def test_body_that_changes_which_tables_its_session_sees_is_named_as_the_cause(
    statements: list[str],
) -> None:
    def body() -> None:
        Effect.objects.create(name="gone")
        with connections["default"].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    (result,) = run(seed("default", function=body))
    assert result.outcome is Outcome.FAILED
    assert result.message.startswith("The body changed which tables its session sees")
    assert rows("default", "SELECT count(*) FROM once_completion") == [(0,)]
    assert effects("default") == []
