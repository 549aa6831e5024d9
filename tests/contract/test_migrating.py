"""Django's migrations, by connections that apply them in different ways."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.migration import Migration

from once.engine.backoff import Wait
from once.migrating import gatekeeper
from tests.support import beside

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


class Nothing(Migration):
    """A migration that is recorded nowhere, because it is faked."""


def apply(using: str) -> None:
    executor = MigrationExecutor(connections[using])
    executor.recorder.record_applied = lambda app, name: None  # type: ignore[method-assign]
    executor.apply_migration(executor.loader.project_state(), Nothing("0001", "shop"), fake=True)


def test_thread_beside_applies_migrations_in_its_own_way(using: str) -> None:
    seen: list[Any] = []

    def own(executor: MigrationExecutor, migration: Migration, go_on: Callable[[], Any]) -> Any:
        seen.append(executor.connection)
        return go_on()

    here = connections[using]
    wait = Wait(name="migrations", using=using, deadline=None)
    with gatekeeper.applying(here, own, wait):
        apply(using)
        with beside(lambda: apply(using)) as done:
            done.result()
    apply(using)
    assert seen == [here]
