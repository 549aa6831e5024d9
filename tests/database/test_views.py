"""Readiness: when it says yes, and what that costs."""

import json

import pytest
from django.db import Error, InterfaceError, OperationalError, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from once import Routine, ledger, views
from once.models import State
from tests.database.support import begin, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_ready", False)


def readiness() -> tuple[int, dict[str, object]]:
    response = Client().get("/ready/")
    assert response["Content-Type"] == "application/json"
    assert "no-store" in response["Cache-Control"]
    return response.status_code, json.loads(response.content)


def test_readiness_is_503_until_everything_is_done(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b")]
    assert readiness() == (503, {"done": False})
    run(declared[0])
    assert readiness() == (503, {"done": False})
    run(declared[1])
    assert readiness() == (200, {"done": True})


def test_readiness_asks_nobody_once_everything_is_done(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    run(declared[0])
    with CaptureQueriesContext(connections[using]) as queries:
        for _ in range(3):
            assert readiness() == (200, {"done": True})
    assert len(queries) == 1


def test_readiness_does_not_count_what_servers_do_not_run(declared: list[Routine]) -> None:
    declared += [
        seed("default", "by_hand", startup=False),
        Routine(function=lambda: None, name="in_memory", scope="process"),
    ]
    assert readiness() == (200, {"done": True})


def test_readiness_is_503_while_a_routine_is_held(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using, retry=False))
    ledger.close(begin(declared[0]), State.LOST)
    assert readiness() == (503, {"done": False})


def test_readiness_is_200_for_an_older_replica(using: str, declared: list[Routine]) -> None:
    run(seed(using, version=2))
    declared.append(seed(using))
    assert readiness() == (200, {"done": True})


def test_readiness_is_503_where_a_scope_lacks_what_it_needs(declared: list[Routine]) -> None:
    declared.append(seed("default", scope="release"))
    ledger.record_migrated("default", "shop.seed", "2024.1")
    assert readiness() == (503, {"done": False})


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_readiness_is_503_while_the_database_errs(
    kind: type[Error], declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(routines: object) -> bool:
        raise kind("connection already closed")

    declared.append(seed("default"))
    run(declared[0])
    with monkeypatch.context() as patch:
        patch.setattr(views, "is_done", refuse)
        assert readiness() == (503, {"done": False})
    assert readiness() == (200, {"done": True})
