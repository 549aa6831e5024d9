"""Batches: whatever dies and however large they are, each item is met once, in order."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import DjangoDbBlocker

from once import Routine, Run
from once.databases import database
from once.databases.lock import NoLock
from once.engine.attempt import Work
from once.engine.backoff import Wait
from once.models import Anchor, Attempt, Completion, State
from once.record import recorder
from once.routines import batches
from once.routines.batches import START
from tests.properties import keyed
from tests.properties.keyed import KEYED
from tests.shop.models import Counted, Effect
from tests.support import attempts, begin

pytestmark = pytest.mark.django_db(databases=["default", "sqlite"])

#: Attempts: the size of their batches, and how many of these they commit before they die.
ATTEMPTS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=5)
few = settings(max_examples=settings().max_examples // 4)


@pytest.fixture(scope="module", autouse=True)
def _tables(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        for using in ("default", "sqlite"):
            keyed.create_tables(using)
        yield
        for using in ("default", "sqlite"):
            keyed.drop_tables(using)


def go_through(
    source: Callable[[], Any],
    using: str,
    tries: list[tuple[int, int]],
    after_each: Callable[[batches.Batch], None] = lambda batch: None,
    **options: Any,
) -> list[Any]:
    """The items of the batches that attempts commit, all of which die but for the last one."""
    seen: list[Any] = []
    cursor = START
    for size, lives in [*tries, (3, 1_000)]:
        made = Routine(
            function=lambda batch: None,
            name="shop.fill",
            using=using,
            over=source,
            batch_size=size,
            **options,
        )
        found = batches.batches(made)
        for _ in range(lives):
            batch = found.after(cursor, size)
            assert len(batch.items) <= size
            seen += batch.items
            cursor = batch.cursor
            after_each(batch)
            if batch.is_last:
                return seen
        found.after(cursor, size)  # which it does not live to commit
    raise AssertionError("The last attempt came to no end.")


@pytest.mark.parametrize("kind", KEYED)
@few
@given(data=st.data(), tries=ATTEMPTS, is_descending=st.booleans())
def test_each_row_is_met_once_in_the_order_of_any_key(
    using: str, kind: str, data: Any, tries: list[tuple[int, int]], is_descending: bool
) -> None:
    model, values = KEYED[kind]
    rows = model._default_manager.using(using)
    rows.all().delete()
    keys = data.draw(st.lists(values, unique=True, max_size=8))
    # Where a collation takes two keys for one, the second one is not there.
    rows.bulk_create([model(pk=key) for key in keys], ignore_conflicts=True)
    ordered = rows.order_by("-pk" if is_descending else "pk")
    seen = go_through(ordered.all, using, tries)
    assert [row.pk for row in seen] == list(ordered.values_list("pk", flat=True))


@given(
    items=st.lists(st.integers(), max_size=12),
    source=st.sampled_from([list, tuple, iter]),
    tries=ATTEMPTS,
)
def test_each_item_is_met_once_in_order(
    items: list[int], source: Callable[[list[int]], Any], tries: list[tuple[int, int]]
) -> None:
    assert go_through(lambda: source(items), "default", tries) == items


@few
@given(
    first=st.sets(st.integers(1, 30), max_size=8),
    later=st.lists(st.sets(st.integers(1, 30), max_size=2), max_size=6),
    tries=ATTEMPTS,
)
def test_last_pass_meets_each_row_once_that_appeared_before_it(
    using: str, first: set[int], later: list[set[int]], tries: list[tuple[int, int]]
) -> None:
    rows = Counted.objects.using(using)
    rows.all().delete()
    rows.bulk_create([Counted(pk=key) for key in first])
    due = set(first)

    def count(batch: batches.Batch) -> None:
        for row in batch.items:
            row.counter += 1
            row.save()
        if json.loads(batch.cursor)["round"] == 1 and later:
            new = later.pop() - due
            rows.bulk_create([Counted(pk=key) for key in new])
            due.update(new)

    seen = go_through(rows.filter(counter=0).all, using, tries, count, last_pass=True)
    assert sorted(row.pk for row in seen) == sorted(due)
    assert set(rows.values_list("counter", flat=True)) <= {1}


@few
@given(
    count=st.integers(0, 9),
    # Attempts: the size of their batches, the one that they fail in, and whether they say so.
    tries=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.booleans()), max_size=4),
    is_rows=st.booleans(),
)
def test_effects_of_each_batch_exist_once_whatever_fails(
    using: str, count: int, tries: list[tuple[int, int, bool]], is_rows: bool
) -> None:
    for model in (Anchor, Attempt, Completion, Effect, Counted):
        model._default_manager.using(using).all().delete()
    Counted.objects.using(using).bulk_create([Counted(pk=key) for key in range(1, count + 1)])
    left = 0

    def body(batch: list[Any], run: Run) -> None:
        nonlocal left
        for item in batch:
            Effect.objects.using(run.using).create(name=f"{getattr(item, 'pk', item)}")
        left -= 1
        if not left:
            raise LookupError

    made = Routine(
        function=body,
        name="shop.fill",
        using=using,
        over=Counted.objects.all if is_rows else lambda: range(1, count + 1),
    )
    for size, left, is_told in [*tries, (2, -1, True)]:  # noqa: B007
        attempt = begin(replace(made, batch_size=size))
        for other in Attempt.objects.using(using).filter(state="running").exclude(pk=attempt.pk):
            recorder.close(other, State.LOST)
        work = Work(
            routine=replace(made, batch_size=size),
            attempt=attempt,
            here=database(using),
            lock=NoLock(),
            wait=Wait(name=made.name, using=using, deadline=None, patience=0.0),
        )
        try:
            work.do()
        except LookupError:
            if is_told:
                recorder.close(attempt, State.FAILED)
        else:
            break
    names = Effect.objects.using(using).order_by("pk").values_list("name", flat=True)
    assert list(names) == [f"{key}" for key in range(1, count + 1)]
    attempt.refresh_from_db()
    assert (attempt.state, attempt.processed, attempt.total) == ("succeeded", count, count)
    assert Completion.objects.using(using).count() == 1
    assert [state for _, _, state in attempts(using)].count("running") == 0
