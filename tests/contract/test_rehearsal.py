"""A dry run: the body is called as the next attempt would call it, and nothing is left of that."""

from typing import Any

import pytest
from django.db import connections, transaction

from once import Routine, Run, signals
from once.databases import database
from once.engine import rehearsal
from once.engine.rehearsal import Rehearsal, rehearse
from once.exceptions import NotDone, TimedOut
from once.models import Wish
from once.record import wishes
from once.routines.registry import Registry
from tests.items import Item, stock
from tests.shop.models import Effect
from tests.support import (
    attempts,
    begin,
    beside,
    completions,
    effects,
    lacking_migrations,
    receiving,
    rows,
    run,
    seed,
    take,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "sqlite"]),
    pytest.mark.usefixtures("item_tables"),
]
#: SQLite has one writer, which waits for its transaction instead.
SERVER = pytest.mark.parametrize("using", ["default"])


class Marks:
    """A body that marks its rows by one statement, and knows which rows those were."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.runs: list[Run] = []

    def __call__(self, batch: Any, run: Run) -> None:
        self.batches.append(sorted(row.number for row in batch.all()))
        self.runs.append(run)
        batch.update(is_done=True)


def filling(using: str, body: Any, **options: Any) -> Routine:
    return Routine(
        **{
            "function": body,
            "name": "shop.fill",
            "using": using,
            "over": lambda: Item.objects.filter(is_done=False),
            "batch_size": 2,
            **options,
        }
    )


def tried(routine: Routine, *others: Routine, **options: Any) -> Rehearsal:
    return rehearse(routine, Registry([*others, routine]), **options)


def marked(using: str) -> int:
    return Item.objects.using(using).filter(is_done=True).count()


def told_by_table(using: str) -> bool:
    return connections[using].vendor == "postgresql"


def test_one_batch_is_called_and_undone(using: str) -> None:
    stock(using, 1, 2, 3, 4, 5)
    body = Marks()
    found = tried(filling(using, body, rest=10.0))
    assert body.batches == [[1, 2]]
    assert (found.items, found.left, found.rows, found.error) == (2, 5, 2, None)
    assert found.statements == 2
    assert found.tables == ({"shop_item": 2} if told_by_table(using) else None)
    assert found.seconds > 0
    assert found.seconds_left == pytest.approx(found.seconds / 2 * 5 + 2 * 10)
    assert marked(using) == 0
    assert (attempts(using), completions(using)) == ([], [])
    [only] = body.runs
    assert (only.using, only.attempt, len(only.key)) == (using, 1, 32)
    only_again = run(filling(using, body))
    assert only_again[0].is_done
    assert marked(using) == 5


def test_limit_is_gone_through_in_batches_of_the_size(using: str) -> None:
    stock(using, *range(8))
    body = Marks()
    assert tried(filling(using, body), limit=5).items == 5
    assert body.batches == [[0, 1], [2, 3], [4]]
    body.batches.clear()
    assert tried(filling(using, body), limit=1).items == 1
    assert tried(filling(using, body), limit=100).items == 8
    assert marked(using) == 0


def test_it_begins_after_the_last_committed_batch(using: str) -> None:
    stock(using, 1, 2, 3, 4, 5)
    body = Marks()
    failing: list[bool] = [True]

    def frail(batch: Any, run: Run) -> None:
        if failing and body.batches:
            raise LookupError("no such item")
        body(batch, run)

    routine = filling(using, frail, over=Item.objects.all)
    run(routine)
    before = attempts(using)
    failing.clear()
    found = tried(routine)
    assert body.batches == [[1, 2], [3, 4]]
    assert (found.items, found.left) == (2, 3)
    assert body.runs[1].attempt == 2
    assert body.runs[1].key == body.runs[0].key
    assert attempts(using) == before
    assert marked(using) == 2


def test_pace_that_a_person_set_counts_and_a_pause_does_not_stop_it(using: str) -> None:
    stock(using, 1, 2, 3, 4)
    body = Marks()
    routine = filling(using, body)
    name = routine.name
    wishes.add(using, name, Wish.Kind.SET, version=1, user="ada", reason="", batch_size=3)
    wishes.add(using, name, Wish.Kind.PAUSE, user="ada", reason="")
    assert tried(routine).items == 3


def test_items_that_are_no_rows(using: str) -> None:
    calls: list[list[int]] = []
    found = tried(filling(using, lambda batch: calls.append(batch), over=lambda: [1, 2, 3]))
    assert calls == [[1, 2]]
    assert (found.items, found.left, found.statements, found.rows) == (2, 3, 0, 0)
    unknown = tried(filling(using, lambda batch: None, over=lambda: iter([1, 2, 3])))
    assert (unknown.items, unknown.left, unknown.seconds_left) == (2, None, None)


def test_nothing_left_calls_nothing(using: str) -> None:
    body = Marks()
    found = tried(filling(using, body))
    assert (found.items, found.left, body.batches, found.seconds_left) == (0, 0, [], None)


def test_atomic_body_is_called_once_and_undone_without_its_hooks(using: str) -> None:
    called: list[str] = []

    def body(run: Run) -> None:
        Effect.objects.using(using).create(name="a")
        transaction.on_commit(lambda: called.append("hook"), using=using)
        assert effects(using) == ["a"]
        run.check()

    found = tried(seed(using, function=body))
    assert (found.items, found.left, found.rows) == (None, None, 1)
    assert found.seconds_left == found.seconds
    assert effects(using) == called == []
    assert attempts(using) == []


def test_no_signal_is_sent(using: str) -> None:
    sent: list[object] = []

    def note(sender: object, **kwargs: Any) -> None:
        sent.append(sender)

    with receiving(signals.attempt_started, note), receiving(signals.attempt_finished, note):
        tried(seed(using))
    assert sent == []


def test_error_of_the_body_is_given_with_its_items_and_nothing_is_recorded(using: str) -> None:
    stock(using, 1, 2, 3)

    def body(batch: Any) -> None:
        batch.update(is_done=True)
        raise LookupError("no such item")

    found = tried(filling(using, body))
    second = Item.objects.using(using).order_by("pk").values_list("pk", flat=True)[1]
    assert str(found.error) == "no such item"
    assert found.place == f"items up to {second}"
    assert marked(using) == 0
    assert attempts(using) == []
    assert not connections[using].in_atomic_block


def test_error_of_over_is_given(using: str) -> None:
    def over() -> list[int]:
        raise LookupError("no such file")

    assert str(tried(filling(using, Marks(), over=over)).error) == "no such file"


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
def test_body_that_ends_the_transaction_is_an_error(using: str, statement: str) -> None:
    found = tried(seed(using, function=lambda: rows(using, statement)))
    assert "ended its transaction itself" in str(found.error)


def test_what_is_done_is_refused(using: str) -> None:
    routine = seed(using)
    run(routine)
    with pytest.raises(NotDone, match="is done"):
        tried(routine)


def test_what_a_person_decides_about_may_be_tried(using: str) -> None:
    stock(using, 1)

    def fail(batch: Any) -> None:
        raise LookupError("no such item")

    run(filling(using, fail, retry=False))
    body = Marks()
    assert tried(filling(using, body, retry=False)).items == 1
    assert [state for *_, state in attempts(using)] == ["failed"]


def test_predecessor_must_be_done(using: str) -> None:
    first = seed(using, "first")
    second = seed(using, "second", after=[first])
    with pytest.raises(NotDone, match=r"first must be done before.*once run first`"):
        tried(second, first)
    run(first)
    assert tried(second, first).error is None


def test_predecessor_in_another_database_must_be_done() -> None:
    first = seed("sqlite", "first")
    second = seed("default", "second", after=[first])
    with pytest.raises(NotDone, match="first must be done before"):
        tried(second, first)


def test_unapplied_migrations_are_in_the_way(using: str) -> None:
    with lacking_migrations(using) as missing, pytest.raises(NotDone, match=missing[0]):
        tried(seed(using))
    assert effects(using) == []


def test_routine_under_its_old_name_is_refused(using: str) -> None:
    stock(using, 1, 2, 3)
    begin(filling(using, Marks(), name="shop.old"))
    with pytest.raises(NotDone, match=r"old name shop\.old"):
        tried(filling(using, Marks(), renamed_from="shop.old"))


def test_process_that_runs_it_is_named_or_waited_for(using: str) -> None:
    routine = seed(using)
    with beside(lambda: None):
        lock = database(using).lock(routine.name, 15)
        with lock:
            take(lock)
            with pytest.raises(NotDone, match=r"shop\.seed is run by "):
                tried(routine, wait=False)
            with pytest.raises(TimedOut):
                tried(routine, timeout=0.1)
    assert tried(routine, wait=False).error is None


def test_it_has_the_lock_while_the_body_runs(using: str) -> None:
    routine = seed(using)
    taken: list[bool] = []

    def look() -> bool:
        with database(using).lock(routine.name, 15) as lock:
            return lock.acquire()

    def body() -> None:
        with beside(look) as answer:
            taken.append(answer.result())

    assert tried(seed(using, function=body)).error is None
    assert taken == [False]


@SERVER
def test_lock_of_another_session_is_waited_for_for_a_short_time(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = database(using)
    monkeypatch.setattr(rehearsal, "LOCKS", 1)
    stock(using, 1)
    table = connections[using].ops.quote_name("shop_item")
    other = connections.create_connection(using)
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(f"SELECT number FROM {table} FOR UPDATE")
        found = tried(filling(using, Marks()))
    finally:
        other.close()
    assert found.error is not None
    assert here.is_in_the_way(found.error)
    assert tried(filling(using, Marks())).error is None


@SERVER
def test_connection_that_was_open_before_has_no_limit_afterwards(using: str) -> None:
    variable = {
        "postgresql": "SHOW lock_timeout",
        "mysql": "SELECT @@SESSION.innodb_lock_wait_timeout",
    }[connections[using].vendor]
    before = rows(using, variable)
    tried(seed(using))
    assert rows(using, variable) == before
