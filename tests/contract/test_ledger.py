"""The record: how routines stand, who may begin, and whose right to commit ends when."""

import os
import socket
import threading
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.models import Model
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from once import Routine
from once.databases import database
from once.doctor.record_probes import try_statements
from once.exceptions import AttemptLost, CannotFence
from once.models import Anchor, Attempt, Completion, FailedItem, Now, State, Wish
from once.record import anchors, history, migrated, recorder
from once.record.standing import Record, Standing
from once.routines.batches import Progress
from once.status import reading
from tests.support import attempts, begin, beside, rows, seed, standings

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def complete(routine: Routine) -> None:
    attempt = begin(routine)
    with transaction.atomic(using=routine.using):
        recorder.complete(attempt)


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ([], Standing.OPEN),
        ([1], Standing.OPEN),
        ([2], Standing.DONE),
        ([1, 2], Standing.DONE),
        ([3], Standing.SUPERSEDED),
        ([2, 3], Standing.SUPERSEDED),
    ],
)
def test_standing_by_recorded_versions(using: str, recorded: list[int], expected: Standing) -> None:
    for version in recorded:
        Completion.objects.using(using).create(routine="shop.seed", version=version)
    Completion.objects.using(using).create(routine="shop.seed", version=2, scope_key="other")
    Completion.objects.using(using).create(routine="shop.other", version=9)
    assert standings(seed(using, version=2)) == {"shop.seed": expected}


def test_standing_is_superseded_by_a_higher_version_of_any_scope_key(using: str) -> None:
    Completion.objects.using(using).create(routine="shop.seed", version=3, scope_key="other")
    assert standings(seed(using, version=2)) == {"shop.seed": Standing.SUPERSEDED}


def test_standing_is_that_of_each_routines_own_database() -> None:
    Completion.objects.using("sqlite").create(routine="b", version=1)
    found = standings(seed("default", "a"), seed("sqlite", "b"), seed("default", "c"))
    assert found == {"a": Standing.OPEN, "b": Standing.DONE, "c": Standing.OPEN}


@pytest.mark.parametrize("is_open", [False, True], ids=["done", "one open"])
def test_standing_of_many_routines_is_one_query_and_two_for_the_open(
    using: str, is_open: bool
) -> None:
    routines = [seed(using, f"r{number}") for number in range(1_000)]
    Completion.objects.using(using).bulk_create(
        Completion(routine=routine.name, version=1) for routine in routines[is_open:]
    )
    with CaptureQueriesContext(connections[using]) as queries:
        found = standings(*routines)
    # SQLite refuses no deletion by hand, so that what was deleted is asked for.
    assert len(queries) == 1 + is_open * (3 if using == "sqlite" else 2)
    assert len(found) == 1_000
    assert found.pop("r0") is (Standing.OPEN if is_open else Standing.DONE)
    assert set(found.values()) == {Standing.DONE}


def test_standing_of_nothing_is_no_query(using: str) -> None:
    with CaptureQueriesContext(connections[using]) as queries:
        assert history.read([]) == {}
    assert len(queries) == 0


def test_prospect_of_a_new_routine(using: str) -> None:
    begin(seed(using, "shop.other"))
    ahead = history.next_attempt(seed(using))
    assert (ahead.record.standing, ahead.number, ahead.predecessors) == (Standing.OPEN, 1, ())
    assert ahead.record.lost_in_a_row == 0
    assert len(ahead.key) == 32
    assert ahead.key != history.next_attempt(seed(using)).key


def test_prospect_counts_on_and_names_the_running(using: str) -> None:
    routine = seed(using)
    first, second = begin(routine), begin(routine)
    recorder.close(first, State.FAILED)
    ahead = history.next_attempt(routine)
    assert ahead.number == 3
    assert ahead.predecessors == (second,)


def test_prospect_names_a_running_attempt_of_another_version(using: str) -> None:
    older = begin(seed(using, version=1))
    ahead = history.next_attempt(seed(using, version=2))
    assert (ahead.number, ahead.predecessors) == (2, (older,))


def test_key_is_that_of_the_first_attempt_at_the_version(using: str) -> None:
    one, two = seed(using, version=1), seed(using, version=2)
    for _ in range(5):  # of another routine, and further on
        recorder.close(begin(seed(using, "shop.other")), State.FAILED)
    first = begin(one)
    recorder.close(first, State.FAILED)
    second = begin(one)
    assert second.key == first.key
    recorder.close(second, State.FAILED)
    third = begin(two)
    assert third.key != first.key
    recorder.close(third, State.FAILED)
    assert begin(two).key == third.key


def test_prospect_counts_the_attempts_lost_in_a_row(using: str) -> None:
    routine = seed(using)
    expected = 0
    for state in (State.LOST, State.FAILED, State.LOST, State.LOST, State.RUNNING):
        attempt = begin(routine)
        if state is not State.RUNNING:
            recorder.close(attempt, state)
        expected = 0 if state is State.FAILED else expected + 1
        assert history.next_attempt(routine).record.lost_in_a_row == expected
    assert expected == 3


@pytest.mark.parametrize("state", State)
def test_version_is_superseded_by_a_higher_one_that_began(using: str, state: State) -> None:
    attempt = begin(seed(using, version=2))
    if state is not State.RUNNING:
        recorder.close(attempt, state)
    expected = {1: Standing.SUPERSEDED, 2: Standing.OPEN, 3: Standing.OPEN}
    for version, standing in expected.items():
        routine = seed(using, version=version)
        assert standings(routine) == {"shop.seed": standing}
        assert history.next_attempt(routine).record.standing is standing


def test_prospect_of_a_completed_routine_is_done(using: str) -> None:
    complete(seed(using))
    assert history.next_attempt(seed(using)).record.standing is Standing.DONE


@override_settings(ONCE_RELEASE="2024.1")
def test_begin_records_who_and_when(using: str) -> None:
    routine = seed(using, version=2)
    ahead = history.next_attempt(routine)
    made = recorder.begin(routine, ahead, "command", user="anna", reason="new prices")
    assert made is not None
    row = Attempt.objects.using(using).get()
    assert row == made
    assert (row.routine, row.number, row.version, row.scope_key) == ("shop.seed", 1, 2, "")
    assert (row.state, row.trigger, row.release) == ("running", "command", "2024.1")
    assert row.key == ahead.key
    assert (row.user, row.reason) == ("anna", "new prices")
    assert (row.host, row.pid) == (socket.gethostname(), os.getpid())
    assert row.started_at is not None
    assert row.finished_at is None


@pytest.mark.parametrize("version", [1, 2])
def test_begin_of_a_number_that_is_taken_is_none(using: str, version: int) -> None:
    routine = seed(using)
    ahead = history.next_attempt(routine)
    assert recorder.begin(seed(using, version=version), ahead, "test") is not None
    assert recorder.begin(routine, ahead, "test") is None
    assert attempts(using) == [("shop.seed", 1, "running")]


@pytest.mark.parametrize("first", [state for state in State if state is not State.RUNNING])
def test_close_is_final(using: str, first: State) -> None:
    attempt = begin(seed(using))
    assert recorder.close(attempt, first, "first") is first
    for second in (State.FAILED, State.LOST):
        assert recorder.close(attempt, second, "second") is first
    attempt.refresh_from_db()
    assert (attempt.state, attempt.error) == (first, "first")
    assert attempt.finished_at is not None


def test_close_of_a_completed_attempt_says_succeeded(using: str) -> None:
    attempt = begin(seed(using))
    with transaction.atomic(using=using):
        recorder.lock_attempt(attempt)
        recorder.complete(attempt)
    assert recorder.close(attempt, State.LOST) is State.SUCCEEDED


def test_lock_after_a_fence_is_refused(using: str) -> None:
    attempt = begin(seed(using))
    recorder.close(attempt, State.LOST)
    with (
        pytest.raises(AttemptLost, match=r"shop\.seed v1 attempt 1 lost its right to commit"),
        transaction.atomic(using=using),
    ):
        recorder.lock_attempt(attempt)


def test_cursor_is_not_put_back_by_an_attempt_that_takes_the_row_for_its_own(using: str) -> None:
    """A failover that lost an attempt may give its id to the next one."""
    routine = seed(using)
    own = recorder.begin(routine, history.next_attempt(routine), "test")
    assert own is not None
    older = Attempt.objects.using(using).get(pk=own.pk)
    recorder.resume(own, Progress(cursor="start"))
    recorder.advance(own, "start", "second", 5)
    with pytest.raises(AttemptLost):
        recorder.resume(older, Progress(cursor="start"))
    assert Attempt.objects.using(using).get().cursor == "second"


def test_complete_after_a_fence_is_refused_and_leaves_nothing(using: str) -> None:
    attempt = begin(seed(using))
    recorder.close(attempt, State.LOST)
    with pytest.raises(AttemptLost), transaction.atomic(using=using):
        recorder.complete(attempt)
    assert not Completion.objects.using(using).exists()


def claim_first(routine: Routine, **options: Any) -> Attempt | None:
    """Claim as a process that has read that nothing is recorded."""
    ahead = history.first_attempt(Record(standing=Standing.OPEN))
    return recorder.begin(routine, ahead, "test", **options)


@pytest.mark.parametrize(
    "known",
    [
        Completion(routine="shop.seed", version=9),
        Wish(routine="shop.seed", number=1, kind=Wish.Kind.SET),
        FailedItem(routine="shop.seed", version=1, item="1", number=1),
    ],
    ids=lambda known: type(known).__name__,
)
def test_first_claim_is_refused_where_anything_is_recorded(using: str, known: Model) -> None:
    routine = seed(using)
    copy(known).save(using=using, force_insert=True)
    assert claim_first(routine) is None
    assert attempts(using) == []


def test_first_claim_is_refused_after_another_attempt_and_beside_one(using: str) -> None:
    routine = seed(using)
    first = claim_first(routine)
    assert first is not None
    assert claim_first(routine) is None
    recorder.close(first, State.FAILED)
    assert claim_first(routine) is None
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_claim_of_an_attempt_that_acts_at_once_moves_the_anchor(using: str) -> None:
    routine = seed(using)
    first = claim_first(routine, acts=True)
    assert first is not None
    assert Anchor.objects.using(using).get().attempt_id == first.pk
    recorder.close(first, State.FAILED)
    begin(routine)  # which is fenced first
    assert Anchor.objects.using(using).get().attempt_id == first.pk


def test_claim_of_a_number_before_the_last_one_moves_no_anchor(using: str) -> None:
    routine = seed(using)
    first, second = begin(routine), begin(routine)
    anchors.move(second)
    first.delete(using=using)
    ahead = replace(history.next_attempt(routine), number=1)
    frozen = recorder.begin(routine, ahead, "test", acts=True)
    assert frozen is not None
    assert Anchor.objects.using(using).get().attempt_id == second.pk
    with pytest.raises(AttemptLost):
        anchors.move(frozen)


def test_close_ends_the_session_that_may_still_commit() -> None:
    routine = seed("default")
    attempt = begin(routine)
    worker = database("default")
    works, fenced = threading.Event(), threading.Event()

    def work() -> None:
        with worker.work():
            assert worker.mark_backend(recorder.work_name(attempt))
            recorder.lock_attempt(attempt)
            with transaction.atomic():  # inside a savepoint too
                rows("default", "SELECT 1")
            works.set()
            assert fenced.wait(30)
            recorder.complete(attempt)

    with beside(work) as worked:
        assert works.wait(30)
        assert recorder.close(attempt, State.LOST) is State.LOST
        fenced.set()
        with pytest.raises(OperationalError):
            worked.result(30)
    assert attempts("default") == [("shop.seed", 1, "lost")]
    assert standings(routine) == {"shop.seed": Standing.OPEN}


def test_close_cannot_fence_a_session_without_the_work_lock() -> None:
    attempt = begin(seed("default"))
    locked, tried = threading.Event(), threading.Event()

    def lock() -> None:
        with transaction.atomic():
            list(Attempt.objects.select_for_update())
            locked.set()
            assert tried.wait(30)

    with beside(lock) as holder:
        assert locked.wait(30)
        with pytest.raises(CannotFence, match=r"shop\.seed v1 attempt 1 is locked by a session"):
            recorder.close(attempt, State.LOST)
        tried.set()
        holder.result(30)
    assert recorder.close(attempt, State.LOST) is State.LOST


def test_work_lock_is_refused_to_a_second_session() -> None:
    here = database("default")
    locked, tried = threading.Event(), threading.Event()

    keys: list[Any] = []

    def lock() -> None:
        with here.work():
            keys.append(here.mark_backend("7"))
            locked.set()
            assert tried.wait(30)

    with beside(lock) as holder:
        assert locked.wait(30)
        [key] = keys
        assert key
        with here.work():
            assert not here.mark_backend("7")
            assert not here.mark_backend("7", key)
            assert here.mark_backend("8")
        tried.set()
        holder.result(30)
    with here.work():
        assert here.mark_backend("7", key) == key


def test_tables_are_installed(using: str) -> None:
    assert history.is_installed(using)


def test_last_attempts_and_completions_by_name(using: str) -> None:
    for name in ("a", "b"):
        recorder.close(begin(seed(using, name)), State.FAILED)
        complete(seed(using, name))
    complete(seed(using, "a", version=2))
    last = {name: attempt.number for name, attempt in reading.last_attempts(using).items()}
    assert last == {"a": 3, "b": 2}
    versions = {name: rows[-1].version for name, rows in history.recorded(using).items()}
    assert versions == {"a": 2, "b": 1}


def test_migrations_are_recorded_once(using: str) -> None:
    assert not migrated.is_migrated(using, "once.migrate", "digest")
    migrated.record_migrated(using, "once.migrate", "digest")
    migrated.record_migrated(using, "once.migrate", "digest")
    assert migrated.is_migrated(using, "once.migrate", "digest")
    assert not migrated.is_migrated(using, "once.migrate", "other")


def test_rehearsal_does_all_and_touches_nobodys_rows(using: str) -> None:
    complete(seed(using, version=2))
    connection = connections[using]
    with transaction.atomic(using=using):
        with CaptureQueriesContext(connection) as queries:
            time, errors = try_statements(using, "once.doctor")
        assert time is not None
        assert errors == {}
        assert Attempt.objects.using(using).get(routine="shop.seed").version == 2
        assert Completion.objects.using(using).get(routine="shop.seed").version == 2
        assert not Attempt.objects.using(using).filter(routine="once.doctor").exists()
        assert not Completion.objects.using(using).filter(routine="once.doctor").exists()
        transaction.set_rollback(True, using=using)
    verbs = [query["sql"].partition(" ")[0] for query in queries]
    done = [verb for verb in verbs if verb in ("INSERT", "SELECT", "UPDATE", "DELETE")]
    assert [done.count(verb) for verb in ("INSERT", "UPDATE", "DELETE")] == [3, 3, 3]
    assert done[:3] == ["INSERT", "SELECT", "UPDATE"]
    assert verbs.count("SAVEPOINT") >= 12  # an error of one leaves the next ones possible


def test_rehearsal_names_the_statement_and_goes_on(using: str) -> None:
    refusal = OperationalError("no")

    def refuse(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE"):
            raise refusal
        return execute(sql, *rest)

    with transaction.atomic(using=using), connections[using].execute_wrapper(refuse):
        _, errors = try_statements(using, "once.doctor")
        transaction.set_rollback(True, using=using)
    tables = ("attempt", "completion", "anchor")
    assert errors == {f"UPDATE on once_{table}": refusal for table in tables}


def test_times_are_by_the_clock_of_the_database(using: str) -> None:
    attempt = begin(seed(using))
    recorder.close(attempt, State.FAILED)
    row = Attempt.objects.using(using).annotate(now=Now()).get()
    assert row.finished_at is not None
    assert row.started_at <= row.finished_at <= row.now


SETTINGS = (
    "SELECT current_setting('transaction_isolation'), current_setting('synchronous_commit'), "
    "current_setting('lock_timeout')"
)


@pytest.mark.postgresql
def test_statement_is_read_committed_and_durable_whatever_the_session_says() -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SET default_transaction_isolation = 'serializable'")
        cursor.execute("SET synchronous_commit = off")
        cursor.execute("SET lock_timeout = '7s'")
    try:
        with database("default").statements():
            assert rows("default", SETTINGS) == [("read committed", "on", "250ms")]
            assert rows("default", SETTINGS + ", %s", ["x"])[0][3] == "x"
        assert rows("default", SETTINGS) == [("serializable", "off", "7s")]
    finally:
        connections["default"].close()


def test_statement_reads_what_was_committed_meanwhile(using: str) -> None:
    with database(using).statements():
        assert not Completion.objects.using(using).exists()
        Completion.objects.using(using).create(routine="shop.seed", version=1)
        assert Completion.objects.using(using).exists()
    assert connections[using].get_autocommit()


@pytest.mark.parametrize("sql", ["SELECT 1 / 0", "SELECT no_such_column", "nonsense", "SELECT 'x"])
@pytest.mark.postgresql
def test_failed_statement_leaves_the_connection_usable(sql: str) -> None:
    here = database("default")
    with here.statements():
        with pytest.raises(DatabaseError):
            rows("default", sql)
        assert rows("default", "SELECT 1") == [(1,)]
    with transaction.atomic():
        assert rows("default", "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "params", "answer"),
    [
        ("SELECT '100%'", None, "100%"),
        ("SELECT '%s %(x)s %%'", None, "%s %(x)s %%"),
        ("SELECT '100%%'", [], "100%"),
        ("SELECT '100%%' || %s", ["%"], "100%%"),
        ("SELECT %s", ["%s; it's 50%"], "%s; it's 50%"),
        ("SELECT %s", ["back\\slash"], "back\\slash"),
    ],
)
@pytest.mark.postgresql
def test_percent_signs_survive(sql: str, params: list[str] | None, answer: str) -> None:
    with database("default").statements():
        assert rows("default", sql, params) == [(answer,)]
    assert rows("default", sql, params) == [(answer,)]


def test_statements_inside_a_transaction_belong_to_it(using: str) -> None:
    with transaction.atomic(using=using):
        with database(using).statements():
            Completion.objects.using(using).create(routine="shop.seed", version=1)
        transaction.set_rollback(True, using=using)
    assert not Completion.objects.using(using).exists()
