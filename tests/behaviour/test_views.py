"""Readiness: when it says yes, and what that costs."""

import json
import logging
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import Error, InterfaceError, OperationalError, connections
from django.test import AsyncClient, Client, override_settings
from django.test.utils import CaptureQueriesContext

from once import Routine
from once.models import State
from once.record import migrated, recorder
from once.routines import registry
from once.status import readiness as readiness_module
from tests.servers import free_port
from tests.support import begin, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


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
    assert len(queries) == 2  # the completions, the migrations


def test_readiness_of_a_worker_that_replaces_another_is_200_for_what_was_reset(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed(using))
    run(declared[0])
    run(declared[0], trigger="reset", even_done=True)
    assert readiness() == (503, {"done": False})  # of a server that starts
    registry.site.was_complete = True  # as its start sets
    declared.append(seed(using, "new"))
    assert readiness() == (503, {"done": False})
    run(declared.pop())
    assert readiness() == (200, {"done": True})


def test_readiness_does_not_count_what_servers_do_not_run(declared: list[Routine]) -> None:
    declared += [
        seed("default", "by_hand", startup=False),
        Routine(function=lambda: None, name="in_memory", scope="process"),
    ]
    assert readiness() == (200, {"done": True})


def test_readiness_is_503_while_a_routine_is_held(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using, retry=False))
    recorder.close(begin(declared[0]), State.LOST)
    assert readiness() == (503, {"done": False})


def test_readiness_is_200_for_an_older_replica(using: str, declared: list[Routine]) -> None:
    run(seed(using, version=2))
    declared.append(seed(using))
    assert readiness() == (200, {"done": True})


def test_readiness_is_503_where_a_scope_lacks_what_it_needs(
    declared: list[Routine], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "once")
    declared.append(seed("default", scope="release"))
    migrated.record_migrated("default", "shop.seed", "2024.1")
    for _ in range(3):
        assert readiness() == (503, {"done": False})
    # However often a probe asks.
    assert caplog.text.count("event=readiness_unknown") == 1


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_readiness_is_503_while_the_database_errs(
    kind: type[Error], declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> bool:
        raise kind("connection already closed")

    declared.append(seed("default"))
    run(declared[0])
    with monkeypatch.context() as patch:
        patch.setattr(readiness_module, "is_done", refuse)
        assert readiness() == (503, {"done": False})
    assert readiness() == (200, {"done": True})


def test_readiness_is_503_where_the_database_is_down(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed("default"))
    here = connections["default"]
    here.close()
    down = {"HOST": "127.0.0.1", "PORT": free_port(), "OPTIONS": {}}
    for name, value in down.items():
        monkeypatch.setitem(here.settings_dict, name, value)
    assert readiness() == (503, {"done": False})  # and not a word about where it is


def test_readiness_of_head_and_of_unsafe_methods(declared: list[Routine]) -> None:
    declared.append(seed("default"))
    assert Client().head("/ready/").status_code == 503
    run(declared[0])
    head = Client().head("/ready/")
    assert (head.status_code, head.content) == (200, b"")
    for method in ("post", "put", "delete"):
        assert getattr(Client(), method)("/ready/").status_code == 405


def test_readiness_opens_no_transaction_where_requests_are_atomic(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    for alias in ("default", "sqlite"):
        monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)
    assert readiness() == (200, {"done": True})
    with CaptureQueriesContext(connections[using]) as queries:
        assert readiness() == (200, {"done": True})
    assert len(queries) == 0


@override_settings(
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    SECURE_SSL_REDIRECT=True,
    SECURE_REDIRECT_EXEMPT=[r"^ready/$"],
)
def test_readiness_redirects_no_probe_to_a_login_page(declared: list[Routine]) -> None:
    declared.append(seed("default"))
    assert readiness() == (503, {"done": False})


def test_readiness_in_an_event_loop(declared: list[Routine]) -> None:
    async def get() -> Any:
        response = await AsyncClient().get("/ready/")
        return response.status_code, json.loads(response.content)

    declared.append(seed("default"))
    assert async_to_sync(get)() == (503, {"done": False})
    run(declared[0])
    assert async_to_sync(get)() == (200, {"done": True})
