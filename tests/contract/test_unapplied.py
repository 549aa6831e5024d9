"""Which migrations a database lacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from once.databases import unapplied
from once.record import gates

pytestmark = pytest.mark.django_db(databases=["default", "sqlite"], transaction=True)

MIGRATION = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = {dependencies}
    replaces = {replaces}
"""


class Files:
    """Migrations of the app ``shop``, in place of its own."""

    def __init__(self, package: Path) -> None:
        self._package = package
        package.mkdir()
        (package / "__init__.py").touch()

    def add(self, name: str, *, after: str = "", replaces: tuple[str, ...] = ()) -> None:
        text = MIGRATION.format(
            dependencies=[("shop", after)] if after else [],
            replaces=[("shop", other) for other in replaces],
        )
        (self._package / f"{name}.py").write_text(text)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(MIGRATION_MODULES={"shop": "moved"}):
        yield Files(tmp_path / "moved")
    for name in [name for name in sys.modules if name.partition(".")[0] == "moved"]:
        del sys.modules[name]


@pytest.fixture
def apply(using: str) -> Iterator[Callable[[str], None]]:
    """Record a migration of ``shop``, for the time of the test."""
    recorder = MigrationRecorder(connections[using])
    names: list[str] = []

    def record(name: str) -> None:
        recorder.record_applied("shop", name)
        names.append(name)

    yield record
    for name in names:
        recorder.record_unapplied("shop", name)


def test_where_all_are_recorded_none_is_loaded(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MigrationLoader, "__init__", None)
    assert unapplied.names(using) == []


def test_one_that_is_not_recorded_is_named(
    using: str, files: Files, apply: Callable[[str], None]
) -> None:
    files.add("0001_initial")
    files.add("0002_first", after="0001_initial")
    files.add("0003_second", after="0002_first")
    apply("0002_first")
    for ask in (unapplied.names, lambda using: gates.behind(using).missing):
        with CaptureQueriesContext(connections[using]) as queries:
            assert ask(using) == ["shop.0003_second"]
        assert len(queries) == 1


def test_what_replaces_those_that_are_recorded_need_not_be(
    using: str, files: Files, apply: Callable[[str], None]
) -> None:
    files.add("0001_initial")
    files.add("0002_first", after="0001_initial")
    files.add("0001_squashed", replaces=("0001_initial", "0002_first"))
    apply("0002_first")
    assert unapplied.names(using) == []


def test_a_database_without_a_record_lacks_all_of_them(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute("ALTER TABLE django_migrations RENAME TO moved_migrations")
    try:
        assert "once.0001_initial" in unapplied.names(using)
    finally:
        with connections[using].cursor() as cursor:
            cursor.execute("ALTER TABLE moved_migrations RENAME TO django_migrations")


def test_an_app_without_migrations_lacks_none(using: str) -> None:
    with override_settings(MIGRATION_MODULES={"shop": None}):
        assert unapplied.names(using) == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.0001"], "(a.0001)"),
        (["a.0001", "a.0002", "b.0001"], "(a.0001, a.0002, b.0001)"),
        (["a.0001", "a.0002", "b.0001", "b.0002"], "(a.0001, a.0002, b.0001 and 1 more)"),
    ],
)
def test_three_migrations_are_named(names: list[str], told: str) -> None:
    assert unapplied.behind({"here": names}) == (
        f"database 'here' lacks migrations of this code {told}"
    )


def test_each_database_that_is_behind_is_named() -> None:
    assert unapplied.behind({"here": ["a.0001"], "there": ["b.0001"]}) == (
        "database 'here' lacks migrations of this code (a.0001), and "
        "database 'there' lacks migrations of this code (b.0001)"
    )
