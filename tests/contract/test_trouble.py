"""What is wrong with the database is no failure of a routine: the place of an error decides."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connections
from django.db.backends.signals import connection_created

from once import Run, signals
from once.databases import database
from once.exceptions import DatabaseUnavailable, MigrationFailed
from once.migrating import migrate
from once.models import Attempt, State
from once.record import history, recorder
from once.results import Outcome
from tests.shop.models import Effect
from tests.support import attempts, beside, effects, limited, receiving, rows, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@contextmanager
def sessions_begin_with(sql: str) -> Iterator[list[str]]:
    """A context in which new sessions of PostgreSQL begin with a statement, until it is removed."""
    statements = [sql]

    def begin(connection: Any, **kwargs: Any) -> None:
        if connection.alias == "default" and statements:
            with connection.cursor() as cursor:
                cursor.execute(statements[0])

    connections["default"].close()
    try:
        with receiving(connection_created, begin):
            yield statements
    finally:
        connections["default"].close()


@contextmanager
def read_only(using: str) -> Iterator[Callable[[], object]]:
    """A context in which a database admits no writes, until what it returns is called."""
    if using == "default":
        statement = "SET default_transaction_read_only = on"
        if connections[using].vendor == "mysql":
            statement = "SET SESSION TRANSACTION READ ONLY"
        with sessions_begin_with(statement) as statements:
            yield statements.clear
        return
    rows(using, "PRAGMA query_only = 1")  # of the one session that a database in memory has
    try:
        yield lambda: connections[using].connection.execute("PRAGMA query_only = 0")
    finally:
        rows(using, "PRAGMA query_only = 0")


def test_read_only_database_is_waited_for_and_then_said(using: str) -> None:
    reasons: list[str] = []
    with (
        receiving(signals.waiting, lambda reason, **_: reasons.append(reason)),
        read_only(using),
        pytest.raises(DatabaseUnavailable, match="admits no writes") as unavailable,
    ):
        run(seed(using), patience=0.5)
    assert f"database {using!r} cannot be used: " in str(unavailable.value)
    assert "read" in reasons[0].lower()
    assert attempts(using) == []


def test_read_only_database_that_becomes_writable_in_time_is_no_failure(using: str) -> None:
    told: list[str] = []
    with read_only(using) as end:

        def hear(reason: str, **kwargs: Any) -> None:
            told.append(reason)
            end()

        with receiving(signals.waiting, hear):
            (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert "read" in told[0].lower()
    assert attempts(using) == [("shop.seed", 1, "succeeded")]


def test_read_only_database_is_no_reason_to_run_what_is_done(using: str) -> None:
    run(seed(using))
    with read_only(using):
        assert run(seed(using))[0].outcome is Outcome.ALREADY_DONE


@pytest.fixture
def reader() -> Iterator[str]:
    """A role that may read the record and not write it, named for the database."""
    [(role,)] = rows("default", "SELECT current_database() || '_reader'")
    rows("default", f"CREATE ROLE {role}")
    rows("default", f"GRANT USAGE ON SCHEMA public TO {role}")
    rows("default", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    yield role
    rows("default", f"DROP OWNED BY {role}")
    rows("default", f"DROP ROLE {role}")


@pytest.mark.postgresql
def test_missing_grant_is_waited_for_and_named(reader: str) -> None:
    with (
        sessions_begin_with(f"SET ROLE {reader}"),
        pytest.raises(DatabaseUnavailable, match=r"GRANT SELECT, INSERT") as unavailable,
    ):
        run(seed("default"), patience=0.3)
    assert "permission denied for table once_attempt" in str(unavailable.value)
    assert attempts("default") == []


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "kind", [{}, {"atomic": False}, {"over": lambda: range(2)}], ids=["atomic", "external", "over"]
)
def test_body_whose_completion_cannot_be_recorded_is_not_called_again_until_it_can(
    kind: dict[str, Any], reader: str
) -> None:
    """By no process: each run here is one, as each worker of a server begins its own."""
    rows("default", f"GRANT ALL ON once_attempt, once_anchor TO {reader}")
    called: list[str] = []

    def body() -> None:
        called.append("body")

    def batch_body(batch: list[int]) -> None:
        called.append("body")

    routine = seed("default", function=batch_body if "over" in kind else body, **kind)
    with sessions_begin_with(f"SET ROLE {reader}"):
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable, match="denied for table once_completion"):
                run(routine, patience=0.8)
        assert called == ["body"]
        assert attempts("default") == [("shop.seed", 1, "interrupted")]
    rows("default", f"GRANT INSERT ON once_completion TO {reader}")
    with sessions_begin_with(f"SET ROLE {reader}"):
        (result,) = run(routine)
    assert (result.outcome, called) == (Outcome.RAN, ["body"] * 2)


def test_table_that_is_gone_is_waited_for_and_named() -> None:
    """The one that is first read in the lock's session, which is lost with that error."""
    rows("default", "ALTER TABLE once_anchor RENAME TO once_gone")
    try:
        with pytest.raises(DatabaseUnavailable, match="once_anchor"):
            run(seed("default"), patience=0.3, timeout=20)
    finally:
        rows("default", "ALTER TABLE once_gone RENAME TO once_anchor")
    assert attempts("default") == []


@pytest.mark.parametrize("kind", ["atomic", "external"])
@pytest.mark.parametrize("part", ["begin", "lock_attempt", "complete"])
def test_error_of_the_record_is_never_the_routines(
    using: str, part: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise IntegrityError("not this one")

    monkeypatch.setattr(recorder, part, refuse)
    with pytest.raises(DatabaseUnavailable, match="IntegrityError: not this one"):
        run(seed(using, atomic=kind == "atomic"), patience=0.2)
    assert {state for _, _, state in attempts(using)} <= {"interrupted"}


def test_error_of_the_record_that_passes_is_survived(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = recorder.complete
    errors = [DatabaseError("no space left on device")]

    def fail_first(attempt: Attempt) -> None:
        if errors:
            raise errors.pop()
        complete(attempt)

    monkeypatch.setattr(recorder, "complete", fail_first)
    (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert effects(using) == ["shop.seed"]
    assert attempts(using) == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


def test_error_of_the_fence_is_no_failure(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    close = recorder.close
    errors = [DatabaseError("canceling statement due to statement timeout")]

    def fail_first(attempt: Attempt, state: State, *args: Any, **options: Any) -> State:
        if state is State.LOST and errors:
            raise errors.pop()
        return close(attempt, state, *args, **options)

    recorder.begin(seed(using), history.next_attempt(seed(using)), "test")
    monkeypatch.setattr(recorder, "close", fail_first)
    (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
    assert [state for _, _, state in attempts(using)] == ["lost", "interrupted", "succeeded"]


@pytest.mark.postgresql
def test_error_of_the_body_is_a_failure_also_where_it_names_a_read_only_database(
    using: str,
) -> None:
    """The record can be written at once: what was read-only is not the database."""

    def body(run: Run) -> None:
        rows(using, "SET TRANSACTION READ ONLY" if using == "default" else "PRAGMA query_only = 1")
        try:
            Effect.objects.using(using).create(name="refused")
        finally:
            if using == "sqlite":
                connections[using].connection.execute("PRAGMA query_only = 0")

    (result,) = run(seed(using, function=body))
    assert (result.outcome, result.reason) == (Outcome.FAILED, "failed")
    assert "read" in result.message
    assert attempts(using) == [("shop.seed", 1, "failed")]


def test_error_of_the_body_is_no_failure_where_its_record_cannot_be_written_either(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = recorder.close
    refusals = [OperationalError("read-only")]
    calls: list[int] = []

    def refuse_first(*args: Any, **options: Any) -> State:
        if refusals:
            raise refusals.pop()
        return close(*args, **options)

    def body(run: Run) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise DatabaseError("cannot execute INSERT in a read-only transaction")

    monkeypatch.setattr(recorder, "close", refuse_first)
    (result,) = run(seed(using, function=body))
    assert result.outcome is Outcome.RAN
    assert attempts(using) == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


@pytest.mark.postgresql
def test_connection_that_a_body_loses_is_no_failure() -> None:
    calls: list[int] = []

    def body(run: Run) -> None:
        calls.append(run.attempt)
        if len(calls) == 1:
            rows("default", "SELECT pg_terminate_backend(pg_backend_pid())")

    (result,) = run(seed("default", function=body))
    assert result.outcome is Outcome.RAN
    assert calls == [1, 2]
    assert attempts("default") == [("shop.seed", 1, "interrupted"), ("shop.seed", 2, "succeeded")]


def test_connection_to_another_database_that_a_body_loses_is_its_failure() -> None:
    def body() -> None:
        raise OperationalError("connection to server at 'legacy' failed") from (
            connections["default"].Database.OperationalError()  # type: ignore[attr-defined]
        )

    (result,) = run(seed("default", function=body))
    assert (result.outcome, result.reason) == (Outcome.FAILED, "failed")
    assert attempts("default") == [("shop.seed", 1, "failed")]


def test_query_of_over_that_fails_is_the_routines_failure(using: str) -> None:
    def over() -> Any:
        rows(using, "SELECT * FROM no_such_table")

    (result,) = run(seed(using, function=lambda batch: None, over=over))
    assert (result.outcome, result.reason) == (Outcome.FAILED, "failed")
    assert "no_such_table" in result.message


def test_constraint_that_is_checked_at_the_commit_is_the_routines_failure() -> None:
    def body() -> None:
        rows("default", "CREATE TABLE once_deferred (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        rows("default", "INSERT INTO once_deferred VALUES (1), (1)")

    (result,) = run(seed("default", function=body))
    assert (result.outcome, result.reason) == (Outcome.FAILED, "failed")
    assert attempts("default") == [("shop.seed", 1, "failed")]


@pytest.mark.postgresql
@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout"])
def test_fence_is_not_cut_off_by_a_limit_of_the_role(limit: str) -> None:
    """The end of a session is waited for, up to a second."""
    here = database("default")
    connections["default"].ensure_connection()
    version: int = connections["default"].pg_version  # type: ignore[attr-defined]
    if limit == "transaction_timeout" and version < 170000:
        limit = "statement_timeout"

    with sessions_begin_with(f"SET {limit} = '200ms'"):
        work = here.work()
        work.__enter__()
        assert here.mark_backend("zombie")
        [(pid,)] = rows("default", "SELECT pg_backend_pid()")
        os.kill(pid, signal.SIGSTOP)
        try:
            with beside(lambda: here.terminate_backend("zombie")) as ended:
                assert ended.result(20) == 1
        finally:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(OperationalError):
            work.__exit__(None, None, None)  # it was ended


def test_migrations_wait_for_a_read_only_database_and_say_so(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_is_current", lambda using: False)

    def command(using: str) -> None:
        Attempt.objects.using(using).create(routine="x", number=1, version=1, trigger="test", pid=1)

    with (
        read_only(using),
        limited(0.3),
        pytest.raises(DatabaseUnavailable, match="admits no writes"),
    ):
        migrate.migrate([using], command)


def test_receiver_of_post_migrate_that_fails_is_no_trouble_of_the_database(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_is_current", lambda using: False)

    def command(using: str) -> None:
        raise IntegrityError("duplicate")

    with pytest.raises(MigrationFailed, match="A receiver of pre_migrate or post_migrate failed"):
        migrate.migrate([using], command)


@pytest.mark.parametrize("reads", ["read", "is_installed"])
def test_record_that_cannot_be_read_is_waited_for(
    using: str, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., Any] = history.read
    errors = [DatabaseError("out of memory")] * 2

    def fail_first(*args: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return original(*args, **options)

    monkeypatch.setattr(history, "read", fail_first)
    if reads == "is_installed":

        def refuse(using: str) -> bool:
            raise DatabaseError("out of memory")

        monkeypatch.setattr(history, "is_installed", refuse)
    (result,) = run(seed(using))
    assert result.outcome is Outcome.RAN
