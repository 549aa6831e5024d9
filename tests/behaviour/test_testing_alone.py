"""One routine run alone, a body called twice, and a registry of a test's own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock, call

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import IntegrityError, connections

from once import Routine, Run, routine, signals
from once.exceptions import RoutineError
from once.models import Attempt, Completion
from once.record.standing import Standing
from once.results import Result
from once.routines import in_memory, registry
from once.status import readiness
from once.testing import (
    assert_idempotent,
    at_gate,
    complete_routines,
    isolated_registry,
    run_routine,
)
from tests.shop.models import Counted, Effect
from tests.support import attempts, effects, last, receiving, seed, standings

pytestmark = pytest.mark.django_db(databases=["default", "sqlite"])
outside = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

TRANSACTIONS = [pytest.param(None, id="inside"), pytest.param(None, marks=outside, id="outside")]


def test_routine_runs_behind_its_predecessors(using: str, declared: list[Routine]) -> None:
    declared += [
        seed(using, "a", atomic=False),
        seed(using, "b", after=["a"]),
        seed(using, "c", after=["b"]),
        seed(using, "d"),
    ]
    result = run_routine(declared[2])
    assert (str(result.outcome), result.routine.name) == ("ran", "c")
    assert result.attempt == Attempt.objects.using(using).get(routine="c")
    assert effects(using) == ["b", "c"]  # an external predecessor is recorded
    assert standings(declared[3]) == {"d": Standing.OPEN}
    assert str(run_routine(declared[2]).outcome) == "already_done"


def test_routine_runs_without_its_predecessors(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"])]
    run_routine(declared[1], predecessors=False)
    assert effects(using) == ["b"]


@pytest.mark.parametrize("_", TRANSACTIONS)
def test_external_routine_that_is_run_alone_is_called(
    _: object, using: str, declared: list[Routine]
) -> None:
    got: list[Run] = []
    declared.append(seed(using, function=lambda run: got.append(run), atomic=False))
    Effect.objects.using(using).create(name="before")
    run_routine(declared[0])
    [handle] = got
    assert (handle.using, handle.attempt, handle.key) == (using, 1, last(using).key)
    assert standings(*declared) == {"shop.seed": Standing.DONE}
    assert effects(using) == ["before"]  # the transaction of the test goes on


@pytest.mark.parametrize("atomic", [True, False])
def test_what_a_body_raises_is_raised_and_told(
    using: str, atomic: bool, declared: list[Routine]
) -> None:
    def body() -> None:
        raise LookupError("gone")

    told = Mock()

    def finish(sender: object, result: Result, **kwargs: object) -> None:
        told(sender, str(result.outcome), result.error, result.attempt and result.attempt.state)

    declared.append(seed(using, function=body, atomic=atomic))
    with receiving(signals.attempt_finished, finish), pytest.raises(LookupError) as raised:
        run_routine(declared[0])
    assert told.mock_calls == [call(declared[0], "failed", raised.value, "failed")]
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_database_error_of_an_external_body_leaves_the_tests_transaction_usable(
    using: str, declared: list[Routine]
) -> None:
    def body() -> None:
        Completion.objects.using(using).create(routine="")  # against a constraint

    declared.append(seed(using, function=body, atomic=False))
    with pytest.raises(IntegrityError):
        run_routine(declared[0])
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_signals_are_sent_as_by_the_runner(using: str, declared: list[Routine]) -> None:
    started, finished = Mock(), Mock()

    def start(sender: object, attempt: Attempt, **kwargs: object) -> None:
        started(sender, attempt.number)

    def finish(sender: object, result: object, **kwargs: object) -> None:
        finished(sender, result)

    declared += [seed(using, "a"), seed(using, "b", after=["a"])]
    with receiving(signals.attempt_started, start), receiving(signals.attempt_finished, finish):
        result = run_routine(declared[1])
    assert started.mock_calls == [call(declared[1], 1)]
    assert finished.mock_calls == [call(declared[1], result)]
    assert result.attempt is not None
    assert result.attempt.state == "succeeded"


def test_process_routine_is_run_once(declared: list[Routine]) -> None:
    body = Mock()
    declared.append(Routine(function=lambda: body(), name="memory", scope="process"))
    assert [str(run_routine(declared[0]).outcome) for _ in range(2)] == ["ran", "already_done"]
    assert body.call_count == 1


def creating(using: str) -> Routine:
    return seed(using, function=lambda: Effect.objects.using(using).create(name="more"))


def keeping(using: str) -> Routine:
    def body() -> None:
        Effect.objects.using(using).get_or_create(name="one")
        Group.objects.using(using).update_or_create(name="staff")

    return seed(using, function=body)


@pytest.mark.parametrize("_", TRANSACTIONS)
def test_idempotent_body_passes_and_leaves_nothing(_: object, using: str) -> None:
    assert_idempotent(keeping(using))
    assert effects(using) == []
    assert not connections[using].needs_rollback
    assert not Attempt.objects.using(using).exists()
    assert not Completion.objects.using(using).exists()


@pytest.mark.parametrize("_", TRANSACTIONS)
def test_row_that_is_new_is_told_of(_: object, using: str) -> None:
    with pytest.raises(
        AssertionError, match=r"(?s)^shop\.seed is not idempotent\. .*new, "
    ) as told:
        assert_idempotent(creating(using))
    assert "shop.Effect " in str(told.value)
    assert "name='more'" in str(told.value)
    assert effects(using) == []


def test_rows_that_changed_or_are_gone_are_told_of(using: str) -> None:
    def body() -> None:
        rows = Counted.objects.using(using)
        if rows.filter(counter=1).exists():
            rows.filter(pk=2).delete()
        rows.filter(pk=1).update(counter=rows.get(pk=1).counter + 1)

    Counted.objects.using(using).create(pk=1, counter=0)
    Counted.objects.using(using).create(pk=2, counter=9)
    with pytest.raises(AssertionError) as told:
        assert_idempotent(seed(using, function=body))
    assert str(told.value).splitlines()[1:] == [
        "  shop.Counted 1: counter 1 became 2",
        "  shop.Counted 2: gone, id=2, counter=9",
    ]
    assert Counted.objects.using(using).count() == 2


def test_many_differences_are_counted(using: str) -> None:
    def body() -> None:
        Effect.objects.using(using).bulk_create([Effect(name="x") for _ in range(25)])

    with pytest.raises(AssertionError) as told:
        assert_idempotent(seed(using, function=body))
    assert len(str(told.value).splitlines()) == 12
    assert str(told.value).endswith("\n  and 15 more")


def test_rows_of_many_to_many_relations_are_compared(using: str) -> None:
    def body() -> None:
        group = Group.objects.using(using).get(name="staff")
        free = Permission.objects.using(using).exclude(group=group).order_by("pk")[0]
        group.permissions.add(free)

    Group.objects.using(using).create(name="staff")
    with pytest.raises(AssertionError, match=r"auth\.Group_permissions \d+: new"):
        assert_idempotent(seed(using, function=body))


def test_models_and_fields_may_be_left_out(using: str) -> None:
    def body() -> None:
        row, _ = User.objects.using(using).get_or_create(username="ann")
        row.first_name += "x"
        row.save()
        Effect.objects.using(using).create(name="more")

    one = seed(using, function=body)
    with pytest.raises(AssertionError, match="first_name 'x' became 'xx'"):
        assert_idempotent(one, models=[User])
    for ignored in ("first_name", "auth.User.first_name"):
        assert_idempotent(one, models=[User], ignore=[ignored])
    with pytest.raises(AssertionError):
        assert_idempotent(one, models=[User], ignore=["auth.Group.first_name"])


def test_time_of_the_call_itself_may_differ(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = User._meta.get_field("last_name")
    monkeypatch.setattr(field, "auto_now", True, raising=False)

    def body() -> None:
        row, _ = User.objects.using(using).get_or_create(username="ann")
        User.objects.using(using).filter(pk=row.pk).update(last_name=row.last_name + "x")

    assert_idempotent(seed(using, function=body))


def test_second_call_that_raises_is_told_of(using: str) -> None:
    body = seed(using, function=lambda: Group.objects.using(using).create(name="staff"))
    with pytest.raises(AssertionError, match="its second call raised IntegrityError: ") as told:
        assert_idempotent(body)
    assert told.value.__cause__ is not None
    assert not Group.objects.using(using).exists()


def test_first_call_that_raises_is_raised(using: str) -> None:
    def body() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        assert_idempotent(seed(using, function=body))


@pytest.mark.parametrize("_", TRANSACTIONS)
def test_batched_body_is_called_for_all_batches_twice(_: object, using: str) -> None:
    batches: list[list[int]] = []
    runs: list[Run] = []

    def body(batch: list[int], run: Run) -> None:
        batches.append(batch)
        runs.append(run)
        Counted.objects.using(using).filter(pk__in=batch).update(counter=1)

    Counted.objects.using(using).bulk_create([Counted(pk=pk) for pk in (1, 2, 3)])
    one = seed(using, function=body, over=lambda: [1, 2, 3], batch_size=2, rest=3_600.0)
    assert_idempotent(one)
    assert batches == [[1, 2], [3]] * 2
    assert [run.attempt for run in runs] == [1, 1, 2, 2]
    assert set(Counted.objects.using(using).values_list("counter", flat=True)) == {0}


def test_batched_body_that_counts_on_being_called_once_fails(using: str) -> None:
    def body(rows: list[Counted]) -> None:
        for row in rows:
            row.counter += 1
            row.save(using=using)

    Counted.objects.using(using).create(pk=1)
    one = seed(using, function=body, over=lambda: Counted.objects.all())
    with pytest.raises(AssertionError, match=r"shop\.Counted 1: counter 1 became 2"):
        assert_idempotent(one)
    filtered = seed(using, function=body, over=lambda: Counted.objects.filter(counter=0))
    assert_idempotent(filtered)


def test_external_body_is_called_with_the_same_key_and_another_attempt(using: str) -> None:
    partner = Mock()

    def body(run: Run) -> None:
        partner(run.key, run.attempt)

    assert_idempotent(seed(using, function=body, atomic=False))
    [first, second] = partner.mock_calls
    assert first.args[0] == second.args[0]
    assert len(first.args[0]) == 32
    assert (first.args[1], second.args[1]) == (1, 2)


def test_async_body_is_called_twice(using: str) -> None:
    calls: list[int] = []

    async def body(run: Run) -> None:
        calls.append(run.attempt)

    assert_idempotent(seed(using, function=body))
    assert calls == [1, 2]


def test_process_routine_has_no_rows_to_compare() -> None:
    with pytest.raises(RoutineError, match="memory only"):
        assert_idempotent(Routine(function=lambda: None, name="memory", scope="process"))


def test_registry_of_a_test_is_its_own(declared: list[Routine]) -> None:
    outer = Routine(function=lambda: None, name="outer", scope="process")
    declared.append(outer)
    in_memory.run([outer])
    before = registry.load()
    with isolated_registry() as mine:
        assert [*registry.load()] == []
        assert not in_memory.has_run(outer)

        @routine(name="inner")
        def inner() -> None: ...

        assert [*registry.load()] == mine == [inner]
        complete_routines()
        assert readiness.is_ready()
    assert declared == [outer]
    assert registry.load() is before
    assert in_memory.has_run(outer)
    assert not registry.site.is_ready


def test_registry_is_back_after_an_error(declared: list[Routine]) -> None:
    def fail() -> None:
        with isolated_registry() as mine:
            mine.append(seed("default"))
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert [*registry.load()] == []


def test_fixture_isolates(once_registry: list[Routine]) -> None:
    routine(name="inner")(lambda: None)
    assert [one.name for one in registry.load()] == ["inner"]
    assert [one.name for one in once_registry] == ["inner"]


def test_held_routine_of_a_test_database_is_tried_again(declared: list[Routine]) -> None:
    problems = [LookupError("a bug in the body")]

    def body() -> None:
        if problems:
            raise problems.pop()

    declared.append(seed("default", "shop.once", function=body, atomic=False, retry=False))
    with pytest.raises(LookupError):
        run_routine(declared[-1])
    assert str(run_routine(declared[-1]).outcome) == "ran"


def at_gate_now(routine: Routine) -> None:
    with at_gate(routine):
        pass


@pytest.mark.parametrize("helper", [run_routine, assert_idempotent, at_gate_now])
def test_name_in_place_of_a_routine_is_refused(helper: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r"Pass a routine, as in shop\.routines\..*, not 'shop.x'"):
        helper("shop.x")


def test_migrations_are_not_undone_in_the_transaction_of_a_test(declared: list[Routine]) -> None:
    declared.append(seed("default", "shop.fill"))
    with pytest.raises(RuntimeError, match="Use TransactionTestCase"):
        at_gate_now(declared[-1])


def test_long_batches_stay_in_the_transaction_of_the_test(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("once.engine.pacing._LOOK", 0.0)  # SQLite's writers make way so often
    closed = Mock()  # of a database in memory it does nothing
    monkeypatch.setattr(connections[using], "close", closed)
    sizes: list[int] = []
    fill = seed(using, function=lambda it: sizes.append(len(it)), over=lambda: range(3))
    declared.append(replace(fill, batch_size=1))
    Effect.objects.using(using).create(name="before")
    run_routine(declared[0])
    assert sizes == [1, 1, 1]
    closed.assert_not_called()
    assert effects(using) == ["before"]
