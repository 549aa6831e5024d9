"""``done_if``: asked before the first call of a body, under the right to commit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.apps import apps as installed
from django.apps.registry import Apps
from django.db import OperationalError, connections

from once import Routine, signals
from once.exceptions import BodyError, RoutineError
from once.models import Anchor, Attempt, Completion, State
from once.record import anchors, recorder
from once.results import Outcome
from tests.contract.test_kinds import Body, kind, routine_of
from tests.support import (
    attempts,
    begin,
    completions,
    conflict,
    effects,
    last,
    receiving,
    rows,
    run,
)

__all__ = ["kind"]

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


class Answers:
    """A ``done_if`` that answers, or raises, what it is told in turn."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def __call__(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def asking(using: str, kind: str, *answers: object, **options: Any) -> tuple[Routine, Body]:
    """A routine that asks first, with a body that tells of its calls."""
    body = Body(using, *options.pop("errors", ()))
    done_if = options.pop("done_if", Answers(*answers))
    return routine_of(kind, using, body, done_if=done_if, **options), body


def test_found_is_recorded_and_its_body_is_not_called(using: str, kind: str) -> None:
    routine, body = asking(using, kind, True)
    (result,) = run(routine)
    assert result.outcome is Outcome.RECORDED
    assert result.is_done
    assert body.runs == []
    row = last(using)
    assert (row.number, row.state, row.trigger, row.user) == (1, "succeeded", "found", "")
    assert completions(using) == [("shop.seed", 1)]
    assert run(routine)[0].outcome is Outcome.ALREADY_DONE


def test_body_is_called_where_its_effects_are_not_found(using: str, kind: str) -> None:
    routine, body = asking(using, kind, False)
    assert run(routine)[0].outcome is Outcome.RAN
    assert body.runs
    assert attempts(using) == [("shop.seed", 1, "succeeded")]
    assert last(using).trigger == "test"


def test_question_is_asked_in_a_transaction_that_may_commit(using: str, kind: str) -> None:
    marks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    seen: list[tuple[bool, bool]] = []

    def done_if() -> bool:
        here = connections[using]
        is_marked = here.vendor != "postgresql" or rows(using, marks) == [(1,)]  # the work lock
        seen.append((here.in_atomic_block, is_marked))
        return True

    run(asking(using, kind, done_if=done_if)[0])
    assert seen == [(True, True)]


def test_attempt_that_was_taken_over_asks_and_records_nothing(using: str, kind: str) -> None:
    routine, body = asking(using, kind, True)  # a second question would fail

    def take_over(attempt: Attempt, **kwargs: Any) -> None:
        if attempt.number == 1:
            recorder.close(attempt, State.LOST, "A successor took over.")

    with receiving(signals.attempt_started, take_over):
        assert run(routine)[0].outcome is Outcome.RECORDED
    assert attempts(using) == [("shop.seed", 1, "lost"), ("shop.seed", 2, "succeeded")]
    assert (body.runs, last(using).trigger) == ([], "found")


def test_question_that_raises_is_a_failed_attempt_and_is_asked_again(using: str, kind: str) -> None:
    routine, body = asking(using, kind, LookupError("no such table"), True, retry=False)
    (failed,) = run(routine)
    assert (failed.outcome, body.runs) == (Outcome.FAILED, [])
    assert (last(using).state, last(using).error_line) == ("failed", "LookupError: no such table")
    assert run(routine)[0].outcome is Outcome.RECORDED  # not held, since no body was called
    assert attempts(using) == [("shop.seed", 1, "failed"), ("shop.seed", 2, "succeeded")]


@pytest.mark.parametrize("answer", [None, 1, "yes"])
def test_answer_that_is_no_bool_is_an_error_of_the_declaration(
    using: str, kind: str, answer: object
) -> None:
    routine, body = asking(using, kind, answer)
    (result,) = run(routine)
    assert isinstance(result.error, RoutineError)
    words = f"done_if= returned a value of type {type(answer).__name__}, which is neither True nor"
    assert words in result.message
    assert (body.runs, completions(using)) == ([], [])


def test_question_that_ends_its_transaction_is_an_error(using: str, kind: str) -> None:
    def done_if() -> bool:
        rows(using, "COMMIT")
        return True

    (result,) = run(asking(using, kind, done_if=done_if)[0])
    assert isinstance(result.error, BodyError)
    assert result.message.startswith("done_if= ended its transaction itself")
    assert completions(using) == []


def test_question_that_another_transaction_was_in_the_way_of_is_asked_again(kind: str) -> None:
    routine, body = asking("default", kind, conflict("default"), True)
    assert run(routine)[0].outcome is Outcome.RECORDED
    assert (body.runs, attempts("default")) == ([], [("shop.seed", 1, "succeeded")])


def after_a_failure(using: str, kind: str) -> None:
    run(asking(using, kind, False, errors=[LookupError()])[0])


def after_a_reset(using: str, kind: str) -> None:
    run(asking(using, kind, True)[0])
    run(asking(using, kind)[0], trigger="reset", even_done=True)


def after_a_lower_version(using: str, kind: str) -> None:
    routine, _ = asking(using, kind, True)
    run(routine)
    recorder.close(begin(routine), State.INTERRUPTED)  # so that no anchor is needed
    anchors.prune(using, -1)
    assert not Anchor.objects.using(using).exists()


def after_another_release(using: str, kind: str) -> None:
    """The effects of that release say nothing of those of this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONCE_RELEASE", "1")
        run(asking(using, kind, True, scope="release")[0])


def after_a_death_in_the_body(using: str, kind: str) -> None:
    anchors.move(begin(asking(using, kind)[0]))


@pytest.mark.parametrize(
    ("before", "options"),
    [
        (after_a_failure, {}),
        (after_a_reset, {}),
        (after_a_lower_version, {"version": 2}),
        (after_another_release, {"scope": "release"}),
        (after_a_death_in_the_body, {}),
    ],
)
def test_nothing_is_asked_after(
    using: str,
    kind: str,
    before: Callable[[str, str], None],
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before(using, kind)
    monkeypatch.setenv("ONCE_RELEASE", "2")
    routine, body = asking(using, kind, **options)  # asked, it would fail
    assert run(routine)[0].outcome is Outcome.RAN
    assert body.runs


def test_attempt_that_died_before_it_called_the_body_is_followed_by_a_question(
    using: str, kind: str
) -> None:
    begin(asking(using, kind)[0])
    routine, body = asking(using, kind, True)
    assert run(routine)[0].outcome is Outcome.RECORDED
    assert body.runs == []
    assert [state for *_, state in attempts(using)] == ["lost", "succeeded"]


def test_question_may_take_the_models_of_a_migration(using: str, kind: str) -> None:
    given: list[Apps] = []

    def done_if(apps: Apps) -> bool:
        given.append(apps)
        return True

    routine, _ = asking(using, kind, done_if=done_if)
    assert routine.takes_apps
    run(routine)
    models = Apps()
    run(replace(routine, name="shop.other").with_models(models))
    assert given == [installed, models]


def test_found_whose_commit_got_no_answer_is_found(
    using: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is settled by the record, which says how it was done."""
    commit = connections[using].commit

    def cut_off() -> None:
        commit()
        if Completion.objects.using(using).exists():
            monkeypatch.undo()
            raise OperationalError("the connection is gone")

    monkeypatch.setattr(connections[using], "commit", cut_off)
    routine, body = asking(using, kind, True)
    (result,) = run(routine)
    assert (body.runs, effects(using)) == ([], [])
    assert result.attempt is not None
    assert (result.outcome, result.attempt.trigger) == (Outcome.RECORDED, "found")
    assert last(using).trigger == "found"
