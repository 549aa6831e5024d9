"""What ``once doctor`` finds where a database does not do as it must, or clocks do not."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connections

from once import Routine, databases, doctor, proofs, record
from once.databases import database, postgresql
from once.databases.postgresql import AdvisoryGuard, PostgreSQL
from once.findings import Finding, Level
from once.guards import Place
from once.registry import Registry
from tests.database.support import rows, seed
from tests.servers import database_url

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


def found(using: str = "default", *routines: Routine) -> dict[str, Finding]:
    """What is found in a database, by id."""
    return {one.id: one for one in doctor.examine(Registry(routines), [using])}


def faults(findings: dict[str, Finding]) -> list[str]:
    return [name for name, one in findings.items() if one.level is Level.FAULT]


def test_databases_of_routines_are_examined() -> None:
    assert doctor.used(Registry([])) == ["default"]
    assert doctor.used(Registry([seed("sqlite")])) == ["sqlite"]
    both = Registry([seed("sqlite"), seed("default", "shop.other")])
    assert doctor.used(both) == ["default", "sqlite"]


def test_nothing_is_wrong_and_nothing_stays(using: str) -> None:
    findings = found(using, seed(using))
    assert {one.level for one in findings.values()} == {Level.OK}
    assert {one.database for one in findings.values()} == {using}
    for table in ("once_attempt", "once_completion"):
        assert rows(using, f"SELECT * FROM {table}") == []


@pytest.mark.parametrize(
    ("apart", "level", "told"),
    [
        (timedelta(hours=-1), Level.WARNING, "clock is 3,600 s behind the database's"),
        (timedelta(hours=1), Level.WARNING, "clock is 3,600 s ahead of the database's"),
        (timedelta(seconds=3), Level.OK, "agree"),
    ],
    ids=["behind", "ahead", "a little"],
)
def test_clock_that_is_off_is_a_warning(
    apart: timedelta, level: Level, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_time", lambda: datetime.now(UTC) + apart)
    findings = found()
    assert findings["clock"].level is level
    assert told in findings["clock"].message
    assert faults(findings) == []


@pytest.mark.postgresql
def test_server_that_does_not_evict_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "_milliseconds", lambda seconds: "0")
    findings = found()
    assert faults(findings) == ["eviction"]
    assert "was not evicted within 3 s" in findings["eviction"].message


@pytest.mark.parametrize(
    ("end_work", "told"),
    [
        (lambda here, name: 0, "was not found by another"),
        (lambda here, name: 1, "was found by another, and not ended"),
    ],
    ids=["not found", "not ended"],
)
@pytest.mark.postgresql
def test_work_session_that_lives_on_is_a_fault(
    end_work: Callable[[Any, str], int], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgreSQL, "end_work", end_work)
    findings = found()
    assert faults(findings) == ["fencing"]
    assert told in findings["fencing"].message


@pytest.mark.postgresql
def test_lock_that_outlives_its_release_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    # As where a pooler hands on sessions with what they hold.
    guards = iter([Place.HOLDER, *[Place.NONE] * 10])
    monkeypatch.setattr(AdvisoryGuard, "take", lambda guard: next(guards))
    monkeypatch.setattr(proofs.Proofs, "pool", lambda self: [])
    findings = found()
    assert faults(findings) == ["exclusion"]
    assert "still holds it" in findings["exclusion"].message


def test_silence_is_a_fault_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()
    for module in (doctor, proofs):
        monkeypatch.setattr(module, "DEADLINE", 0.2)
    monkeypatch.setattr(record, "is_installed", lambda using: is_over.wait(60))
    try:
        findings = found()
    finally:
        is_over.set()
    assert faults(findings) == ["tables"]
    assert findings["tables"].message == "No answer within 0 s."


@pytest.mark.postgresql
def test_locked_table_is_named_and_not_waited_for() -> None:
    [(name,)] = rows("default", "SELECT current_database()")
    with psycopg.connect(database_url(), dbname=name) as other:
        other.execute("LOCK TABLE once_completion IN SHARE MODE")
        findings = found()
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


def test_kind_without_a_guard_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases.base, "SUPPORTED", {})
    findings = found("sqlite")
    assert list(findings) == faults(findings) == ["server"]
    assert "has no guard" in findings["server"].message


def test_json_has_the_contracts_keys() -> None:
    shown = doctor.to_json(
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
    assert doctor.to_json([fault])["healthy"] is False


@pytest.mark.postgresql
def test_old_server_and_other_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from once.databases import postgresql_server

    def answer(connection: object, sql: str) -> list[tuple[Any, ...]]:
        if "pg_is_in_recovery" in sql:
            pid = connections["default"].connection.info.backend_pid
            return [("app", "app", False, False, "serializable", "local", "one", False, 2, pid)]
        if "pg_settings" in sql:
            return [("lock_timeout = 500ms",), ("statement_timeout = 500ms",)]
        return []

    monkeypatch.setattr(postgresql_server, "_rows", answer)
    monkeypatch.setattr(postgresql_server, "_OLDEST", 990000)
    monkeypatch.setattr(postgresql_server, "_OLDEST_PSYCOPG", (99,))
    connections["default"].ensure_connection()
    findings = {one.id: one for one in database("default").examine()}
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
    from once.databases import postgresql_server

    def answer(connection: object, sql: str) -> list[tuple[Any, ...]]:
        if "pg_is_in_recovery" not in sql:
            return []
        pid = connections["default"].connection.info.backend_pid
        return [
            ("app", "app", False, False, "read committed", commit, standbys, True, replicas, pid)
        ]

    monkeypatch.setattr(postgresql_server, "_rows", answer)
    findings = {one.id: one for one in database("default").examine()}
    assert findings["durability"].level is level
    assert ("lose record and effects together" in findings["durability"].message) is (
        level is Level.WARNING
    )
