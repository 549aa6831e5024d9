"""What ``once doctor`` finds where a database does not do as it must, or clocks do not."""

import re
import threading
from argparse import Namespace
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connections

from once import Routine, databases
from once.cli.options import databases as databases_of
from once.databases import database, postgresql_lock, tables
from once.databases.postgresql import PostgreSQL
from once.databases.postgresql_lock import PostgreSQLLock
from once.databases.standby import Place
from once.doctor import deployment, examination, lock_probes, postgresql, record_probes
from once.doctor.deployment import Deployment, Finding, Level
from once.models import State
from once.record import history, recorder
from once.routines.registry import Registry
from tests.servers import database_url
from tests.support import begin, rows, seed

FAILED, LOST, RUNNING, SUCCEEDED = State.FAILED, State.LOST, State.RUNNING, State.SUCCEEDED

DEFAULT = Deployment(database=database("default"), registry=Registry([]))

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The silence between two signs of life is not longer than what the eviction takes."""
    monkeypatch.setenv("ONCE_LIVENESS_TIMEOUT", "6")


def found(using: str = "default", *routines: Routine) -> dict[str, Finding]:
    """What is found in a database, by id."""
    return {one.id: one for one in examination.examine(Registry(routines), [using])}


def probed(
    probe: Callable[[Deployment], Iterable[Finding]], using: str = "default", *routines: Routine
) -> dict[str, Finding]:
    """What one probe finds, by id."""
    deployment = Deployment(database=database(using), registry=Registry(routines))
    return {one.id: one for one in probe(deployment)}


def faults(findings: dict[str, Finding]) -> list[str]:
    return [name for name, one in findings.items() if one.level is Level.FAULT]


def test_databases_of_routines_are_examined() -> None:
    options = Namespace(database=None)
    assert databases_of(Registry([]), options) == ["default"]
    assert databases_of(Registry([seed("sqlite")]), options) == ["sqlite"]
    both = Registry([seed("sqlite"), seed("default", "shop.other")])
    assert databases_of(both, options) == ["default", "sqlite"]
    assert databases_of(both, Namespace(database="sqlite")) == ["sqlite"]


def test_nothing_is_wrong_and_nothing_stays(using: str) -> None:
    findings = found(using, seed(using))
    assert {one.level for one in findings.values()} == {Level.OK}
    assert {one.database for one in findings.values()} == {using}
    for table in ("once_attempt", "once_completion"):
        assert rows(using, f"SELECT * FROM {table}") == []


@pytest.mark.parametrize(
    ("apart", "level", "told"),
    [
        (timedelta(hours=-1), Level.WARNING, r"clock is 3,[56]\d\d s behind the database's"),
        (timedelta(hours=1), Level.WARNING, r"clock is 3,[56]\d\d s ahead of the database's"),
        (timedelta(seconds=3), Level.OK, "agree"),
    ],
    ids=["behind", "ahead", "a little"],
)
def test_clock_that_is_off_is_a_warning(
    apart: timedelta, level: Level, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_probes, "_time", lambda: datetime.now(UTC) + apart)
    findings = probed(record_probes.privileges)
    assert findings["clock"].level is level
    assert re.search(told, findings["clock"].message)
    assert faults(findings) == []


@pytest.mark.postgresql
def test_server_that_does_not_evict_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_lock, "milliseconds", lambda seconds: "0")
    findings = found()
    assert faults(findings) == ["eviction"]
    assert "was not evicted within 3 s" in findings["eviction"].message


@pytest.mark.parametrize(
    ("liveness", "silence", "told"),
    [
        (45, 15, []),
        (300, 100, ["The proof of endurance takes 100 s, a third of ONCE_LIVENESS_TIMEOUT."]),
    ],
)
@pytest.mark.postgresql
def test_endurance_is_proved_up_to_the_first_sign_of_life(
    liveness: float, silence: float, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setenv("ONCE_LIVENESS_TIMEOUT", f"{liveness}")
    monkeypatch.setattr("once.doctor.lock_probes.time.sleep", slept.append)
    monkeypatch.setattr(lock_probes, "_REST", {"postgresql": "SELECT 'of %s s'"})
    findings = probed(lock_probes.endurance)
    assert [one.message for name, one in findings.items() if name == "duration"] == told
    assert faults(findings) == []
    assert slept == [silence]
    assert f"lasted for {silence:.1f} s" in findings["endurance"].message
    assert f"of {silence:.1f} s came to its end. No longer" in findings["statement"].message


@pytest.mark.postgresql
def test_limit_of_the_servers_own_is_not_taken_for_a_poolers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONCE_LIVENESS_TIMEOUT", "3")
    options = connections["default"].settings_dict["OPTIONS"]
    monkeypatch.setitem(options, "options", "-c statement_timeout=500ms")
    assert faults(probed(lock_probes.endurance)) == []


@pytest.mark.parametrize(
    ("terminate_backend", "told"),
    [
        (lambda here, name: 0, "was not found by another"),
        (lambda here, name: 1, "was found by another, and not ended"),
    ],
    ids=["not found", "not ended"],
)
@pytest.mark.postgresql
def test_work_session_that_lives_on_is_a_fault(
    terminate_backend: Callable[[Any, str], int], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgreSQL, "terminate_backend", terminate_backend)
    findings = probed(lock_probes.fencing)
    assert faults(findings) == ["fencing"]
    assert told in findings["fencing"].message


@pytest.mark.postgresql
def test_lock_that_outlives_its_release_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    # As where a pooler hands on sessions with what they hold.
    locks = iter([Place.HOLDER, *[Place.NONE] * 10])
    monkeypatch.setattr(PostgreSQLLock, "take", lambda lock, name: next(locks))
    findings = probed(lock_probes.exclusion)
    assert faults(findings) == ["exclusion"]
    assert "still holds it" in findings["exclusion"].message


def test_silence_is_a_fault_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()
    for module in (deployment, examination):
        monkeypatch.setattr(module, "DEADLINE", 3.0)
    monkeypatch.setattr(history, "is_installed", lambda using: is_over.wait(60))
    try:
        findings = found()
    finally:
        is_over.set()
    assert faults(findings) == ["tables"]
    assert findings["tables"].message == "No answer within 3 s."


@pytest.mark.postgresql
def test_locked_table_is_named_and_not_waited_for() -> None:
    [(name,)] = rows("default", "SELECT current_database()")
    with psycopg.connect(database_url(), dbname=name) as other:
        other.execute("LOCK TABLE once_completion IN SHARE MODE")
        findings = probed(record_probes.privileges)
    assert faults(findings) == ["privileges"]
    assert "INSERT on once_completion" in findings["privileges"].message
    assert "once_attempt" not in findings["privileges"].message
    assert "See what keeps it" in findings["privileges"].hint


def test_writer_in_the_way_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = connections["sqlite"].copy()
    monkeypatch.setitem(connections["sqlite"].settings_dict, "OPTIONS", {"timeout": 0.1})
    try:
        with writer.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
        findings = found("sqlite")
    finally:
        writer.connection.close()  # which the wrapper does not do in memory
    assert faults(findings) == []
    assert findings["privileges"].level is Level.WARNING
    assert "another session is in the way" in findings["privileges"].message


def test_kind_without_a_lock_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases.kinds, "SUPPORTED", {})
    findings = found("sqlite")
    assert list(findings) == faults(findings) == ["server"]
    assert "has no lock" in findings["server"].message


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ([LOST, LOST], None),
        ([LOST, LOST, LOST, FAILED], None),
        ([LOST, LOST, LOST, SUCCEEDED], None),
        ([LOST, LOST, LOST], 3),
        ([FAILED, LOST, LOST, LOST, LOST], 4),
        ([LOST, LOST, RUNNING], 3),  # without a process that holds its lock
    ],
    ids=str,
)
def test_routine_whose_attempts_are_lost_again_and_again_is_a_warning(
    using: str, states: list[State], told: int | None
) -> None:
    routine = seed(using)
    for state in states:
        attempt = begin(routine)
        if state is not RUNNING:
            recorder.close(attempt, state)
    findings = probed(record_probes.routines, using, routine)
    assert faults(findings) == []
    assert ("lost" in findings) is (told is not None)
    if told is not None:
        lost = findings["lost"]
        assert lost.level is Level.WARNING
        assert f"The last {told} attempts at shop.seed were lost in a row" in lost.message
        assert "has 48 s without a sign of life, and never more" in lost.message
        assert "Raise ONCE_LIVENESS_TIMEOUT, now 6 s, above the longest stretch" in lost.hint


@pytest.mark.parametrize(("before", "is_told"), [(2, False), (3, True)])
def test_attempt_that_runs_is_not_counted_as_lost(using: str, before: int, is_told: bool) -> None:
    routine = seed(using)
    for _ in range(before):
        recorder.close(begin(routine), LOST)
    with database(using).lock(routine.name, 6.0) as lock:
        assert lock.acquire()
        begin(routine)
        findings = probed(record_probes.routines, using, routine)
    assert ("lost" in findings) is is_told
    assert not is_told or "The last 3 attempts" in findings["lost"].message


def test_json_has_the_contracts_keys() -> None:
    shown = examination.to_json(
        [
            Finding(id="a", database="x", message="Well."),
            Finding(id="b", database="x", level=Level.WARNING, message="Look.", hint="Go."),
        ]
    )
    assert shown == {
        "schema": 1,
        "healthy": True,
        "counts": {"ok": 1, "warning": 1},
        "findings": [
            {"id": "a", "database": "x", "level": "ok", "message": "Well.", "hint": ""},
            {
                "id": "b",
                "database": "x",
                "level": "warning",
                "message": "Look.",
                "hint": "Go.",
            },
        ],
    }
    fault = Finding(id="c", database="x", level=Level.FAULT, message="Bad.")
    assert examination.to_json([fault])["healthy"] is False


@pytest.mark.postgresql
def test_old_server_and_other_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(connection: object, sql: str, *params: object) -> list[tuple[Any, ...]]:
        if "pg_is_in_recovery" in sql:
            pid = connections["default"].connection.info.backend_pid
            return [("app", "app", False, False, "serializable", "local", "one", False, 2, pid)]
        if "pg_settings" in sql:
            return [("lock_timeout = 500ms",), ("statement_timeout = 500ms",)]
        return []

    monkeypatch.setattr(tables, "ask", answer)
    monkeypatch.setattr(postgresql, "_OLDEST", (99,))
    monkeypatch.setattr(postgresql, "_OLDEST_PSYCOPG", (99,))
    connections["default"].ensure_connection()
    findings = {one.id: one for one in postgresql.examine(DEFAULT)}
    assert findings["server"].level is Level.FAULT
    assert "upgrade the server" in findings["server"].hint
    assert findings["driver"].level is Level.WARNING
    assert findings["session"].message == (
        "Role app, isolation level serializable; for bodies hold lock_timeout = 500ms, "
        "statement_timeout = 500ms."
    )
    assert findings["durability"].level is Level.WARNING
    assert "fsync is off" in findings["durability"].message


@pytest.mark.parametrize(
    ("commit", "standbys", "replicas", "level"),
    [
        ("on", "", 0, Level.OK),
        ("off", "", 0, Level.OK),
        ("on", "", 2, Level.WARNING),
        ("on", "one", 2, Level.OK),
        ("remote_apply", "one", 2, Level.OK),
        ("local", "one", 2, Level.WARNING),
    ],
)
@pytest.mark.postgresql
def test_replication_that_may_lose_what_is_committed_is_a_warning(
    commit: str, standbys: str, replicas: int, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(connection: object, sql: str, *params: object) -> list[tuple[Any, ...]]:
        if "pg_is_in_recovery" not in sql:
            return []
        pid = connections["default"].connection.info.backend_pid
        return [
            ("app", "app", False, False, "read committed", commit, standbys, True, replicas, pid)
        ]

    connections["default"].ensure_connection()
    monkeypatch.setattr(tables, "ask", answer)
    findings = {one.id: one for one in postgresql.examine(DEFAULT)}
    assert findings["durability"].level is level
    assert ("lose record and effects together" in findings["durability"].message) is (
        level is Level.WARNING
    )
