"""A database that lacks a migration of this code is not ready, with or without routines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.checks.registry import registry as checks
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from health_check.views import HealthCheckView

from once import Routine, signals
from once.models import Completion
from once.routines import registry
from once.views import readiness as view
from tests.behaviour.command import Answer
from tests.support import receiving, run, seed

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "sqlite"]),
    pytest.mark.urls(__name__),
]

urlpatterns = [
    path("ready/", view),
    path("health/", HealthCheckView.as_view(checks=["once.health_check.Routines"])),
]


@pytest.fixture
def migrations(using: str) -> Iterator[MigrationRecorder]:
    """The record of migrations, which is afterwards as it was."""
    recorder = MigrationRecorder(connections[using])
    before = {*recorder.applied_migrations()}
    yield recorder
    after = {*recorder.applied_migrations()}
    for name in before - after:
        recorder.record_applied(*name)
    for name in after - before:
        recorder.record_unapplied(*name)


@pytest.fixture
def behind(migrations: MigrationRecorder) -> Callable[[], None]:
    """A database lacks a migration of this code, until this is called."""
    migrations.record_unapplied("shop", "0001_initial")
    return lambda: migrations.record_applied("shop", "0001_initial")


def is_ready() -> bool:
    return Client().get("/ready/").status_code == 200


@pytest.fixture
def declared_everywhere(using: str, declared: list[Routine]) -> None:
    """Routines in both databases, where the test is not about a ``default`` without any."""
    declared.append(seed("sqlite"))
    run(*declared)


@pytest.mark.usefixtures("declared_everywhere")
def test_readiness_is_503_while_a_used_database_or_default_lacks_a_migration(
    behind: Callable[[], None],
) -> None:
    assert not is_ready()
    behind()
    assert is_ready()


@pytest.mark.usefixtures("behind")
def test_readiness_does_not_ask_a_database_that_nobody_uses(
    using: str, declared: list[Routine]
) -> None:
    assert is_ready() == (using == "sqlite")


@pytest.mark.parametrize("later", ["0002_later", "0099_squashed"])
def test_readiness_of_an_old_release_on_a_newer_schema_is_200(
    later: str, migrations: MigrationRecorder, declared: list[Routine]
) -> None:
    declared.append(seed("sqlite"))
    run(*declared)
    migrations.record_applied("shop", later)
    migrations.record_applied("gone", "0001_initial")
    assert is_ready()


def test_readiness_asks_each_database_one_query_more(declared: list[Routine]) -> None:
    declared += [seed("default"), seed("sqlite", "shop.more")]
    run(*declared)
    with (
        CaptureQueriesContext(connections["default"]) as queries,
        CaptureQueriesContext(connections["sqlite"]) as others,
    ):
        assert is_ready()
    assert (len(queries), len(others)) == (2, 2)


@pytest.mark.usefixtures("behind")
def test_start_with_nothing_pending_does_not_look_for_migrations(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    Completion.objects.using(using).create(routine="shop.seed", version=1)
    with CaptureQueriesContext(connections[using]) as queries:
        run(*registry.load().startup)
    assert len(queries) == 1


@pytest.mark.usefixtures("declared_everywhere")
def test_health_counts_the_migrations_and_the_log_names_them(
    using: str, behind: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> Any:
        return Client().get("/health/?format=json").json()["Routines()"]

    with caplog.at_level(logging.INFO, "once"):
        assert told() == "Unavailable: Not done: 1 unapplied migration."
    assert f'event=not_ready unapplied="{using}: shop.0001_initial"' in caplog.text
    behind()
    assert told() == "OK"


@pytest.mark.usefixtures("declared_everywhere")
def test_check_is_3_while_a_used_database_or_default_lacks_a_migration(
    using: str, behind: Callable[[], None]
) -> None:
    answer = Answer("status", "--check")
    assert answer.code == 3
    assert answer.message == (
        f"Not done: database '{using}' lacks migrations of this code (shop.0001_initial). "
        "Next: `manage.py once run --migrate`."
    )
    assert (
        f"Database '{using}' lacks migrations of this code (shop.0001_initial). Run" in answer.out
    )
    shown = Answer("status", "--json").json
    assert shown["done"] is False
    assert shown["unapplied"] == {using: ["shop.0001_initial"]}
    behind()
    assert Answer("status", "--check").code == 0
    shown = Answer("status", "--json").json
    assert (shown["done"], shown["unapplied"]) == (True, {})


@pytest.mark.usefixtures("behind")
def test_check_of_a_name_looks_at_its_database_only(using: str, declared: list[Routine]) -> None:
    declared.append(seed("sqlite"))
    Completion.objects.using("sqlite").create(routine="shop.seed", version=1)
    assert Answer("status", "--check", "shop.seed").code == (3 if using == "sqlite" else 0)
    assert Answer("wait", "--timeout", "0", "shop.seed").code == (4 if using == "sqlite" else 0)


@pytest.mark.usefixtures("declared_everywhere")
def test_wait_lasts_until_every_migration_is_applied(
    using: str, behind: Callable[[], None]
) -> None:
    reasons: list[str] = []

    def apply(sender: object, reason: str, **kwargs: object) -> None:
        reasons.append(reason)
        behind()

    assert Answer("wait", "--timeout", "0").code == 4
    with receiving(signals.waiting, apply):
        assert Answer("wait").code == 0
    assert reasons == [
        f"database '{using}' lacks migrations of this code (shop.0001_initial): "
        "run `manage.py once run --migrate`"
    ]


@pytest.mark.parametrize("using", ["default"])
def test_wait_without_routines_waits_for_the_migrations_of_default(
    behind: Callable[[], None], declared: list[Routine]
) -> None:
    answer = Answer("wait", "--timeout", "0")
    assert (answer.code, "(shop.0001_initial)" in answer.message) == (4, True)
    behind()
    assert Answer("wait").code == 0


def test_migrate_brings_default_up_to_date_where_no_routine_lives_in_it(
    declared: list[Routine],
) -> None:
    declared.append(seed("sqlite"))
    assert Answer("run", "--migrate", "-v0").code == 0
    for alias in ("default", "sqlite"):
        assert Completion.objects.using(alias).filter(routine="once.migrate").exists()


def test_migrate_of_several_databases_gives_a_warning_once(declared: list[Routine]) -> None:
    declared.append(seed("sqlite", function=lambda: None))  # which takes no run
    answer = Answer("run", "--migrate", "-v0", skip_checks=False)
    assert (answer.code, answer.err.count("once.W001")) == (0, 1)
    assert "once" in {tag for check in checks.registered_checks for tag in check.tags}


def test_migrate_of_one_database_leaves_default_alone(declared: list[Routine]) -> None:
    declared.append(seed("sqlite"))
    assert Answer("run", "--migrate", "-v0", "--database", "sqlite").code == 0
    assert not Completion.objects.using("default").exists()


def test_default_that_is_no_database_is_not_asked(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed("sqlite"))
    run(*declared)
    monkeypatch.setattr(connections["default"], "vendor", "unknown")
    assert is_ready()
    assert Answer("wait").code == 0


def test_status_survives_a_default_without_routines_that_is_out_of_reach(
    declared: list[Routine],
) -> None:
    declared.append(seed("sqlite"))
    run(*declared)
    here = connections["default"]
    lost = here.copy()
    lost.settings_dict |= {"HOST": "/nowhere/at/all", "NAME": "/nowhere/at.all"}
    connections["default"] = lost
    try:
        told = Answer("status")
        shown = Answer("status", "--json")
        checked = Answer("status", "--check")
        of_a_name = Answer("status", "--check", "shop.seed")
    finally:
        connections["default"] = here
    assert told.code == 0
    assert told.out.count("Database 'default' cannot be read: OperationalError: ") == 1
    assert "shop.seed" in told.out
    assert (shown.code, shown.json["done"], [*shown.json["unread"]]) == (0, False, ["default"])
    assert (checked.code, of_a_name.code) == (4, 0)
