"""Batches of rows: their order, their cursors, and the transaction of each."""

import gc
import json
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.db.models import IntegerField, QuerySet
from django.db.models.functions import Cast
from django.db.models.lookups import GreaterThan
from django.db.models.signals import post_init
from django.test.utils import CaptureQueriesContext, register_lookup

from once import Routine, Run, signals
from once.exceptions import BatchError
from once.models import Attempt
from once.record import recorder
from once.results import Outcome, Result
from once.routines import batches
from once.routines.batches import START, Progress
from tests.items import Badge, Detail, Item, Pair, stock
from tests.shop.models import Effect
from tests.support import (
    attempts,
    conflict,
    effects,
    last,
    lose_first_lock,
    receiving,
    rows,
    run,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "sqlite"]),
    pytest.mark.usefixtures("item_tables"),
]
#: For a test that runs nothing.
rolled_back = pytest.mark.django_db(databases=["default", "sqlite"])


class Bodies:
    """The batches that a body was called with."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []

    def __call__(self, batch: list[Any]) -> None:
        self.batches.append([getattr(item, "number", item) for item in batch])

    @property
    def items(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]


def over(source: Any, using: str = "default", body: Any = None, **options: Any) -> Routine:
    """A routine over what a function returns, or over a value."""
    return Routine(
        **{
            "function": (body or (lambda batch: None)),
            "name": "shop.fill",
            "using": using,
            "over": source if callable(source) else lambda: source,
            "batch_size": 2,
            **options,
        }
    )


def through(routine: Routine) -> list[Any]:
    """The items of every batch, by the cursors alone: no body is called."""
    found = batches.batches(routine)
    cursor = START
    seen: list[Any] = []
    while True:
        batch = found.after(cursor, routine.batch_size)
        seen += batch.items
        assert len(batch.items) == batch.count <= routine.batch_size
        if batch.is_last:
            return seen
        cursor = batch.cursor


def failing_at(item: Any, using: str, **options: Any) -> Callable[[list[Any], Run], None]:
    """A body that leaves an effect for each item, and fails after that one, once."""
    failed: list[bool] = []

    def body(batch: list[Any], run: Run) -> None:
        for each in batch:
            Effect.objects.using(using).create(name=f"{each}")
        if item in batch and not failed:
            failed.append(True)
            raise options.get("error", LookupError("no such item"))

    return body


# Querysets


def test_queryset_is_gone_through_in_batches_of_the_size(using: str) -> None:
    stock(using, 1, 2, 3, 4, 5)
    body = Bodies()
    (result,) = run(over(Item.objects.all, using, body))
    assert (result.outcome, result.message) == (Outcome.RAN, "")
    assert body.batches == [[1, 2], [3, 4], [5]]
    assert attempts(using) == [("shop.fill", 1, "succeeded")]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_body_is_called_with_every_item_and_never_with_nothing(using: str, count: int) -> None:
    numbers = list(range(count))
    stock(using, *numbers)
    body = Bodies()
    assert run(over(Item.objects.all, using, body))[0].outcome is Outcome.RAN
    assert body.items == numbers
    assert [] not in body.batches


def test_empty_queryset_completes_without_calling_the_body(using: str) -> None:
    body = Bodies()
    assert run(over(Item.objects.none, using, body))[0].outcome is Outcome.RAN
    assert body.batches == []
    assert run(over(Item.objects.none, using, body))[0].outcome is Outcome.ALREADY_DONE


@rolled_back
def test_queryset_is_that_of_the_routines_database() -> None:
    stock("sqlite", 1)
    stock("default", 2)
    assert [item.number for item in through(over(Item.objects.all, "sqlite"))] == [1]


KEYS = ["number", "day", "moment", "amount", "ratio", "period", "code", "token", "twin"]


@rolled_back
@pytest.mark.parametrize("sign", ["", "-"], ids=["ascending", "descending"])
@pytest.mark.parametrize("key", ["pk", "id", *KEYS])
def test_queryset_is_gone_through_in_the_order_of_a_unique_field(
    using: str, key: str, sign: str
) -> None:
    numbers = [1, 2, 3, 10, 11]
    stock(using, *(numbers if key in ("pk", "id") else reversed(numbers)))
    found = through(over(Item.objects.order_by(f"{sign}{key}"), using))
    assert [item.number for item in found] == (numbers[::-1] if sign else numbers)


@rolled_back
def test_queryset_without_an_order_is_in_that_of_the_primary_key(using: str) -> None:
    """Whatever the order is that its model wants."""
    stock(using, 1, group=3)
    stock(using, 2, 3, 4, group=2)
    found = through(over(Item.objects.filter(number__gt=0).order_by(), using))
    assert [item.number for item in found] == [1, 2, 3, 4]
    assert through(over(Item.objects.all(), using)) == found


@rolled_back
@pytest.mark.parametrize("model", [Badge, Detail])
def test_primary_key_need_not_be_a_number(using: str, model: Any) -> None:
    if model is Badge:
        Badge.objects.using(using).bulk_create(Badge() for _ in range(5))
    else:
        stock(using, 1, 2, 3, 4, 5)
        for item in Item.objects.using(using).all():
            Detail(item_ptr=item).save_base(raw=True, using=using)
    found = through(over(model.objects.all, using))
    assert [row.pk for row in found] == list(
        model.objects.using(using).order_by("pk").values_list("pk", flat=True)
    )
    assert len(found) == 5


@rolled_back
@pytest.mark.parametrize(
    "source",
    [
        Item.objects,
        Item.objects.all(),
        Item.objects.filter(number__lt=9).exclude(number=7),
        Item.objects.only("pk"),
        Item.objects.defer("number"),
        Item.objects.distinct(),
        Item.objects.prefetch_related("friends"),
    ],
    ids=["manager", "all", "filtered", "only", "defer", "distinct", "prefetch"],
)
def test_queryset_may_be_made_in_many_ways(using: str, source: Any) -> None:
    stock(using, 1, 2, 3, 7, 9)
    expected = list(source.using(using).order_by("pk"))
    assert through(over(lambda: source, using)) == expected


def test_queryset_may_lock_its_rows(using: str) -> None:
    stock(using, 1, 2, 3)
    body = Bodies()
    run(over(Item.objects.select_for_update, using, body))
    assert body.items == [1, 2, 3]


def test_body_may_fetch_locked_rows_by_a_cursor_that_ends_with_the_batch(using: str) -> None:
    """As PostgreSQL locks no rows by a cursor that outlives its transaction."""
    stock(using, 1, 2, 3)
    body = Bodies()
    (result,) = run(over(Item.objects.select_for_update, using, lambda rows: body(rows.iterator())))
    assert (result.outcome, body.items) == (Outcome.RAN, [1, 2, 3])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda: Item.objects.values("pk"), "values() or values_list(). Return one of model"),
        (lambda: Item.objects.values_list("pk", flat=True), "values() or values_list()"),
        (lambda: Item.objects.all()[:3], "sliced, reversed, combined or distinct on some fields"),
        (lambda: Item.objects.reverse(), "sliced, reversed, combined or distinct"),
        (lambda: Item.objects.union(Item.objects.all()), "sliced, reversed, combined or distinct"),
        (lambda: Item.objects.distinct("group"), "sliced, reversed, combined or distinct"),
        (lambda: Item.objects.order_by("group"), "that is never NULL, or of several that are un"),
        (lambda: Item.objects.order_by("maybe"), "unique together, not of maybe"),
        (lambda: Item.objects.order_by("friends"), "not of friends"),
        (lambda: Item.objects.order_by("friends__number"), "not of friends__number"),
        (lambda: Item.objects.order_by("?"), "not of ?"),
        (lambda: Item.objects.order_by("group"), "or leave the order to the primary key."),
        (lambda: Pair.objects.order_by("left"), "or of several that are unique together, not of"),
    ],
)
def test_queryset_without_a_usable_key_is_refused_and_says_what_to_do(
    source: Callable[[], Any], words: str
) -> None:
    with pytest.raises(BatchError, match=r"^over= of shop\.fill ") as refusal:
        batches.batches(over(source))
    assert words in str(refusal.value)


PAIRS = [(left, right) for left in (1, 2, 3) for right in (1, 2)]


@rolled_back
@pytest.mark.parametrize(
    ("order", "key"),
    [
        ((), lambda pair: pair),
        (("pk",), lambda pair: pair),
        (("-pk",), lambda pair: (-pair[0], -pair[1])),
        (("left", "right"), lambda pair: pair),
        (("-left", "right"), lambda pair: (-pair[0], pair[1])),
        (("right", "-left"), lambda pair: (pair[1], -pair[0])),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_key_of_several_columns(
    using: str, order: tuple[str, ...], key: Callable[[tuple[int, int]], Any], size: int
) -> None:
    pairs = Pair.objects.using(using)
    pairs.bulk_create(Pair(left=left, right=right) for left, right in reversed(PAIRS))
    found = through(over(Pair.objects.order_by(*order), using, batch_size=size))
    assert [(pair.left, pair.right) for pair in found] == sorted(PAIRS, key=key)


class ByValue(GreaterThan):
    """A lookup that computes with the value, which therefore is none of a statement's."""

    lookup_name = "gt"

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        assert self.rhs.bit_length() > 0
        return super().as_sql(compiler, connection)


@rolled_back
def test_lookup_may_compute_with_the_key(using: str) -> None:
    stock(using, 1, 2, 3, 4, 5)
    with register_lookup(IntegerField, ByValue):
        found = through(over(Item.objects.order_by("number"), using))
    assert [item.number for item in found] == [1, 2, 3, 4, 5]


@rolled_back
def test_order_may_begin_with_what_is_not_unique(using: str) -> None:
    stock(using, 1, 4, group=2)
    stock(using, 2, 3, 5, group=1)
    found = through(over(Item.objects.order_by("group", "-number"), using))
    assert [item.number for item in found] == [5, 3, 2, 4, 1]


def test_batch_of_rows_is_changed_by_one_statement_and_loads_nothing(using: str) -> None:
    stock(using, 1, 2, 3, 4, 5)

    def body(batch: QuerySet[Item]) -> None:
        assert batch.update(group=7) in (1, 2)

    loaded: list[type] = []

    def note(sender: type, **kwargs: Any) -> None:
        loaded.append(sender)

    with receiving(post_init, note):
        assert run(over(Item.objects.filter(group=0), using, body))[0].outcome is Outcome.RAN
    assert Item not in loaded
    assert {item.group for item in Item.objects.using(using).all()} == {7}
    assert last(using).processed == 5


def test_queryset_that_is_refused_fails_the_routine_before_its_body(using: str) -> None:
    body = Bodies()
    (result,) = run(over(Item.objects.order_by("group"), using, body))
    assert result.outcome is Outcome.FAILED
    assert isinstance(result.error, BatchError)
    assert "that are unique together, not of group" in result.message
    assert body.batches == []
    assert attempts(using) == [("shop.fill", 1, "failed")]


# Other items


def numbers() -> Iterator[int]:
    yield from (1, 2, 3)


def test_no_more_than_two_batches_of_rows_are_in_memory(using: str) -> None:
    stock(using, *range(40))
    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    counts: list[int] = []

    def note(sender: type, instance: Any, **kwargs: Any) -> None:
        if sender is Item:
            alive.add(instance)
            counts.append(len(alive))

    def collect(batch: QuerySet[Item]) -> None:
        assert len(batch) == 4
        gc.collect()

    gc.freeze()  # because only what the run makes is to be collected
    try:
        with receiving(post_init, note):
            run(over(Item.objects.all, using, collect, batch_size=4))
    finally:
        gc.unfreeze()
    assert len(counts) == 40
    assert max(counts) <= 8


# Progress, failure and resumption


def told(routine: Routine) -> tuple[list[tuple[int, int | None, int]], Result]:
    """What is told of each batch: items done, all there are, and those done before."""
    heard: list[tuple[int, int | None, int]] = []

    def hear(attempt: Attempt, **kwargs: Any) -> None:
        heard.append((attempt.processed, attempt.total, attempt.resumed))

    with receiving(signals.progressed, hear):
        (result,) = run(routine)
    return heard, result


def test_progress_is_told_after_each_batch_and_recorded(using: str) -> None:
    stock(using, 1, 2, 3)
    heard, result = told(over(Item.objects.all, using))
    assert heard == [(2, 3, 0), (3, 3, 0)]
    assert result.attempt is not None
    row = last(using)
    assert (row.processed, row.total, row.resumed) == (3, 3, 0)


def test_failing_batch_is_undone_alone_and_resumed(using: str) -> None:
    routine = over([1, 2, 3, 4, 5], using, failing_at(4, using))
    heard, result = told(routine)
    assert result.outcome is Outcome.FAILED
    assert result.message == (
        "LookupError: no such item, at items after 2 up to 4. Its committed batches stay; the next "
        "attempt goes on after them. Fix the cause and run this again."
    )
    assert effects(using) == ["1", "2"]
    assert heard == [(2, 5, 0)]
    heard, result = told(routine)
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["1", "2", "3", "4", "5"]
    assert heard == [(4, 5, 2), (5, 5, 2)]
    assert attempts(using) == [("shop.fill", 1, "failed"), ("shop.fill", 2, "succeeded")]


def test_failing_batch_of_a_queryset_is_resumed_after_the_last_row_done(using: str) -> None:
    stock(using, 1, 2, 3, 4, 5)
    seen = Bodies()
    failing = failing_at(Item.objects.using(using).get(number=4), using)

    def body(batch: list[Item], run: Run) -> None:
        failing(batch, run)
        seen(batch)

    routine = over(Item.objects.all, using, body)
    assert told(routine)[0] == [(2, 5, 0)]
    assert told(routine)[0] == [(4, 5, 2), (5, 5, 2)]
    assert seen.batches == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("source", "now"),
    [
        (lambda: Item.objects.order_by("-pk"), "-id"),
        (lambda: Item.objects.order_by("number"), "number"),
        (lambda: list(Item.objects.all()), "position"),
    ],
    ids=["other direction", "other field", "list"],
)
def test_order_that_changed_is_refused_where_it_went_on(
    using: str, source: Callable[[], Any], now: str
) -> None:
    stock(using, 1, 2, 3, 4)
    body = Bodies()

    def fail_late(batch: list[Item]) -> None:
        if body.items:
            raise LookupError
        body(batch)

    run(over(Item.objects.all, using, fail_late))
    (result,) = run(over(source, using, body))
    assert isinstance(result.error, BatchError)
    assert f"goes by {now} now, but earlier attempts went by id" in result.message
    assert body.items == [1, 2]
    run(over(Item.objects.all, using, body))
    assert body.items == [1, 2, 3, 4]


def test_queryset_that_has_no_rows_any_more_ends_where_it_went_on(using: str) -> None:
    """Of which Django asks no database."""
    stock(using, 1, 2, 3)
    failing = failing_at(Item.objects.using(using).get(number=3), using)
    assert run(over(Item.objects.all, using, failing))[0].outcome is Outcome.FAILED
    (result,) = run(over(Item.objects.none, using))
    assert result.outcome is Outcome.RAN
    assert last(using).processed == 2


def test_rows_that_appear_ahead_are_met_and_those_behind_are_not(using: str) -> None:
    stock(using, 2, 4, 6)
    body = Bodies()

    def insert(batch: list[Item]) -> None:
        body(batch)
        if body.items == [2, 4]:
            stock(using, 1, 5)

    run(over(Item.objects.order_by("number"), using, insert))
    assert body.batches == [[2, 4], [5, 6]]


def test_last_pass_meets_rows_that_appeared_behind(using: str) -> None:
    stock(using, 2, 4, 6)
    body = Bodies()

    def insert(batch: list[Item]) -> None:
        body(batch)
        Item.objects.using(using).filter(pk__in=[item.pk for item in batch]).update(is_done=True)
        if body.items == [2, 4, 6]:
            stock(using, 1, 3)

    source = Item.objects.filter(is_done=False).order_by("number")
    run(over(source, using, insert, last_pass=True))
    assert body.batches == [[2, 4], [6], [1, 3]]
    assert not Item.objects.using(using).filter(is_done=False).exists()


def test_failure_in_the_last_pass_is_resumed_there(using: str) -> None:
    stock(using, 1, 2, 3)
    visited = Bodies()

    def body(batch: list[Item], run: Run) -> None:
        visited(batch)
        if visited.items == [1, 2, 3, 1, 2, 3]:
            raise LookupError

    routine = over(Item.objects.all, using, body, last_pass=True)
    assert [run(routine)[0].outcome for _ in range(2)] == [Outcome.FAILED, Outcome.RAN]
    assert visited.batches == [[1, 2], [3], [1, 2], [3], [3]]


def test_cursor_of_each_batch_is_recorded_with_it(using: str) -> None:
    stock(using, 1, 2, 3)
    cursors: list[str] = []

    def body(batch: list[Item], run: Run) -> None:
        cursors.append(last(using).cursor)

    run(over(Item.objects.order_by("code"), using, body))
    assert [json.loads(cursor)["after"] for cursor in cursors] == [None, "002"]


@pytest.mark.parametrize("using", ["default"])
def test_conflict_in_a_batch_of_rows_repeats_only_that_batch(using: str) -> None:
    stock(using, 1, 2, 3, 4, 5)
    failing = failing_at("004", using, error=conflict(using))

    def body(batch: list[Item], run: Run) -> None:
        failing([str(item) for item in batch], run)

    (result,) = run(over(Item.objects.all, using, body))
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["001", "002", "003", "004", "005"]
    assert attempts(using) == [("shop.fill", 1, "succeeded")]
    assert last(using).processed == 5


@pytest.mark.parametrize("using", ["default"])
@pytest.mark.parametrize("source", [lambda: [1, 2, 3], numbers], ids=["list", "generator"])
def test_conflict_in_a_batch_of_items_has_another_attempt_read_them_anew(
    using: str, source: Callable[[], Any]
) -> None:
    (result,) = run(over(source, using, failing_at(3, using, error=conflict(using))))
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["1", "2", "3"]
    assert attempts(using) == [("shop.fill", 1, "failed"), ("shop.fill", 2, "succeeded")]


@pytest.mark.parametrize("using", ["default"])
def test_conflict_inside_a_generator_loses_no_item(using: str) -> None:
    """A generator that raised is at its end: to ask it for more would be to take that for all."""
    errors = [conflict(using)]

    def source() -> Iterator[int]:
        yield from (1, 2)
        if errors:
            raise errors.pop()
        yield 3

    body = Bodies()
    assert run(over(source, using, body))[0].outcome is Outcome.RAN
    assert body.items == [1, 2, 3]


def test_hook_after_the_commit_of_a_batch_that_raises_is_reported_at_the_end(using: str) -> None:
    def fail() -> None:
        raise LookupError("no mail server")

    def body(batch: list[int]) -> None:
        for each in batch:
            Effect.objects.using(using).create(name=f"{each}")
        if 3 in batch:
            transaction.on_commit(fail, using=using)

    heard, result = told(over([1, 2, 3, 4, 5], using, body))
    assert result.outcome is Outcome.RAN
    assert result.message == "Done and recorded, but afterwards: LookupError: no mail server"
    assert effects(using) == ["1", "2", "3", "4", "5"]
    assert [processed for processed, _, _ in heard] == [2, 4, 5]
    assert attempts(using) == [("shop.fill", 1, "succeeded")]


def test_hook_that_failed_is_told_of_where_a_later_batch_fails(using: str) -> None:
    def fail() -> None:
        raise ValueError("no mail server")

    def body(batch: list[int]) -> None:
        if 3 in batch:
            raise LookupError("no such item")
        transaction.on_commit(fail, using=using)

    run(over([1, 2, 3], using, body))
    assert "LookupError: no such item" in last(using).error
    assert "Before that, after a commit: ValueError: no mail server" in last(using).error


def test_hook_after_the_commit_of_a_batch_sees_it_committed(using: str) -> None:
    seen: list[int] = []

    def body(batch: list[int]) -> None:
        transaction.on_commit(lambda: seen.append(last(using).processed), using=using)

    run(over([1, 2, 3], using, body))
    assert seen == [2, 3]


def test_lock_that_is_lost_between_batches_ends_the_attempt_there(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_first_lock(using, monkeypatch, "check", call=3)  # two come before the body
    body = Bodies()
    (result,) = run(over([1, 2, 3, 4, 5], using, body))
    assert result.outcome is Outcome.RAN
    assert body.batches == [[1, 2], [3, 4], [5]]
    assert attempts(using) == [("shop.fill", 1, "interrupted"), ("shop.fill", 2, "succeeded")]
    assert last(using).resumed == 2


def test_rest_is_between_batches_and_without_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests: list[tuple[bool, bool]] = []
    sleep = time.sleep

    def rest(seconds: float) -> None:
        rests.append((seconds <= 0.02, connections["default"].connection is None))
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", rest)
    run(over([1, 2, 3, 4, 5], "default", rest=0.02))
    assert rests == [(True, True)] * 2


def test_async_body_shares_the_transaction_of_its_batch(using: str) -> None:
    async def body(batch: list[int], run: Run) -> None:
        for each in batch:
            await Effect.objects.using(run.using).acreate(name=f"{each}")
        if 3 in batch and run.attempt == 1:
            raise LookupError

    routine = over([1, 2, 3], using, body)
    assert run(routine)[0].outcome is Outcome.FAILED
    assert effects(using) == ["1", "2"]
    assert run(routine)[0].outcome is Outcome.RAN
    assert effects(using) == ["1", "2", "3"]


def test_batch_is_the_bodys_own(using: str) -> None:
    """What a body does to its list changes neither the place to go on nor what is counted."""
    seen = Bodies()

    def consume(batch: list[int]) -> None:
        seen(batch)
        batch.clear()

    heard, _ = told(over([1, 2, 3], using, consume))
    assert seen.items == [1, 2, 3]
    assert [processed for processed, _, _ in heard] == [2, 3]


# The database


@pytest.mark.postgresql
def test_statement_timeout_cancels_a_statement_of_a_batch() -> None:
    def body(batch: list[int]) -> None:
        rows("default", "SELECT pg_sleep(60)")

    (result,) = run(over([1], "default", body, statement_timeout=0.5))
    assert isinstance(result.error, OperationalError)
    assert "canceling statement due to statement timeout" in result.message


class SlowToCount(QuerySet[Item]):
    """Rows of which the first come at once, and the number after a minute."""

    def count(self) -> int:
        rows("default", "SELECT pg_sleep(60)")
        return super().count()


def test_total_that_takes_too_long_to_find_out_is_unknown() -> None:
    stock("default", 1, 2, 3)
    heard, result = told(over(lambda: SlowToCount(Item), "default", statement_timeout=1))
    assert result.outcome is Outcome.RAN
    assert heard == [(2, None, 0), (3, None, 0)]


@pytest.mark.postgresql
def test_statement_timeout_ends_with_the_batch() -> None:
    timeouts: list[str] = []

    def show(**kwargs: Any) -> None:
        timeouts.extend(one for (one,) in rows("default", "SHOW statement_timeout"))

    connections["default"].ensure_connection()
    with receiving(signals.progressed, show):
        run(over([1, 2, 3], "default", show_in(timeouts), statement_timeout=7.5))
    assert timeouts == ["7500ms", "0", "7500ms", "0"]


def show_in(timeouts: list[str]) -> Callable[[list[int]], None]:
    return lambda batch: timeouts.extend(
        one for (one,) in rows("default", "SHOW statement_timeout")
    )


def queries_of(using: str, batch_count: int) -> int:
    """How many statements a routine of that many batches takes."""
    connections[using].ensure_connection()
    routine = over(Item.objects.all, using, name=f"shop.fill{batch_count}")
    with CaptureQueriesContext(connections[using]) as queries:
        assert run(routine)[0].outcome is Outcome.RAN
    return len(queries)


@pytest.mark.postgresql
def test_one_more_batch_takes_a_fixed_number_of_statements(using: str) -> None:
    """Begin, commit; work lock, attempt row with a savepoint, items, its end with the cursor.

    SQLite has no work lock, and takes one statement at a time.
    """
    stock(using, *range(3))
    few = queries_of(using, 2)
    stock(using, *range(3, 7))
    assert (queries_of(using, 4) - few) / 2 == {"default": 6, "sqlite": 7}[using]


@rolled_back
def test_total_counts_what_is_done_and_what_is_to_come(using: str) -> None:
    stock(using, 1, 2, 3, 4)
    found = batches.batches(over(Item.objects.all, using))
    cursor = found.after(START, 2).cursor
    assert found.total(Progress(cursor=START)) == 4
    assert found.total(Progress(cursor=cursor, processed=2)) == 4


# Commits that the database loses: a standby that lagged is promoted, or a server crashes


def rewinding(using: str, *numbers: int) -> Callable[..., None]:
    """A receiver of progress that loses the last commit, as a failover would, at those calls."""
    states: list[tuple[dict[str, Any], set[Any]]] = []
    calls: list[int] = []

    def lose(attempt: Attempt, **kwargs: Any) -> None:
        row = Attempt.objects.using(using).filter(pk=attempt.pk)
        effects_now = Effect.objects.using(using)
        calls.append(1)
        if len(calls) in numbers:
            values, kept = states[-1]
            row.update(**values)
            effects_now.exclude(pk__in=kept).delete()
        else:
            values = dict(row.values("cursor", "processed").get())
            states.append((values, set(effects_now.values_list("pk", flat=True))))

    return lose


@pytest.mark.parametrize("lost", [(2,), (3,), (2, 4), (2, 3)])
@pytest.mark.parametrize("source", ["rows", "list", "iterator", "last pass"])
def test_batches_that_the_database_lost_are_done_again(
    using: str, source: str, lost: tuple[int, ...]
) -> None:
    stock(using, *range(10))

    def body(batch: list[Any], run: Run) -> None:
        for each in batch:
            Effect.objects.using(using).create(name=f"{getattr(each, 'number', each)}")

    sources: dict[str, Callable[[], Any]] = {
        "rows": lambda: Item.objects.order_by("number"),
        "list": lambda: list(range(10)),
        "iterator": lambda: iter(range(10)),
        "last pass": lambda: Item.objects.order_by("number").exclude(
            number__in=Effect.objects.using(using).values(at=Cast("name", IntegerField()))
        ),
    }
    options = {"last_pass": True} if source == "last pass" else {}
    routine = over(sources[source], using, body, **options)
    with receiving(signals.progressed, rewinding(using, *lost)):
        (result,) = run(routine)
    assert result.outcome is Outcome.RAN, result.message
    assert effects(using) == [f"{number}" for number in range(10)]
    states = [state for _, _, state in attempts(using)]
    assert states == ["lost"] * (len(states) - 1) + ["succeeded"]
    assert len(states) > 1
    assert last(using).processed == 10


def test_batch_whose_predecessor_was_lost_says_why(using: str) -> None:
    routine = over([1, 2, 3, 4, 5], using)
    with receiving(signals.progressed, rewinding(using, 2)):
        run(routine)
    error = Attempt.objects.using(using).get(number=1).error
    assert "the database lost commits" in error
    assert "took over" not in error


def test_last_batch_is_no_completion_where_the_one_before_was_lost(using: str) -> None:
    """Also where there is nothing left to call the body for."""
    routine = over([1, 2, 3, 4], using)
    with receiving(signals.progressed, rewinding(using, 2)):
        run(routine)
    assert [state for _, _, state in attempts(using)] == ["lost", "succeeded"]


def test_place_to_go_on_from_is_read_where_it_is_noted(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one transaction, which has one server: an address may lead to another one meanwhile."""
    seen: list[bool] = []
    resume = recorder.resume

    def look(attempt: Attempt, done: Progress) -> None:
        seen.append(connections[using].in_atomic_block)
        resume(attempt, done)

    monkeypatch.setattr(recorder, "resume", look)
    run(over([1, 2, 3], using))
    assert seen == [True]
