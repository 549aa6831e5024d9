"""Find the migrations of this code that a database lacks."""

import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from once.databases import PATIENCE, database, is_supported, tables


def databases(of_routines: Iterable[str]) -> list[str]:
    """Return aliases of databases that must have all migrations: of routines, and ``default``.

    A ``default`` of no supported kind or driver is left out: Django has one where none is set.
    """
    aliases = {*of_routines}
    if is_supported(DEFAULT_DB_ALIAS):
        aliases.add(DEFAULT_DB_ALIAS)
    return sorted(aliases)


def lacking(
    aliases: Iterable[str],
    *,
    unread: dict[str, Error] | None = None,
    seconds: float = PATIENCE,
) -> dict[str, list[str]]:
    """Return what each of these databases lacks, as :func:`names` does, where it does.

    Where ``unread`` is given, a database that cannot be read is noted there with why.
    """
    found: dict[str, list[str]] = {}
    for using in aliases:
        try:
            with database(using).reading(seconds):
                if missing := names(using):
                    found[using] = missing
        except Error as error:
            if unread is None:
                raise
            unread[using] = error
    return found


def behind(found: Mapping[str, Sequence[str]]) -> str:
    """Say what databases lack, as a sentence without its full stop: three names of each at most."""
    told = []
    for using, names in found.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        named = f"{', '.join(names[:3])}{more}"
        told.append(f"database {using!r} lacks migrations of this code ({named})")
    return ", and ".join(told)


def blocker(using: str, missing: Sequence[str]) -> str:
    """Return why routines are not run, for the migrations that their database lacks."""
    there = "" if using == DEFAULT_DB_ALIAS else f" --database {using}"
    return (
        f"Blocked: {behind({using: missing})}. Run `manage.py once run --migrate`, or `manage.py "
        f"migrate{there}` first."
    )


def names(using: str) -> list[str]:
    """Return the migrations of this code, as ``app.name``, that a database lacks."""
    loader = loaded(using)
    return [".".join(key) for key in ahead(loader)] if loader else []


def ahead(loader: MigrationLoader) -> list[tuple[str, str]]:
    """Return the keys of migrations that are not applied, in the order in which they will be."""
    graph = loader.graph
    plan = chain.from_iterable(map(graph.forwards_plan, graph.leaf_nodes()))
    return [*dict.fromkeys(key for key in plan if key not in loader.applied_migrations)]


def loaded(using: str) -> MigrationLoader | None:
    """Return the migrations of this code, or ``None`` where a database has recorded each.

    It asks the database once.
    """
    # Not loaded where all are recorded, because that takes a hundred times as long, and each
    # process of a herd would load them, on connections that other processes wait for.
    connection = connections[using]
    table = connection.ops.quote_name(tables.migrations())
    try:
        with database(using).statements():
            recorded = {*tables.ask(connection, f"SELECT app, name FROM {table}")}
    except DatabaseError as error:
        if database(using).is_lost(error) or MigrationRecorder(connection).has_table():
            raise
        recorded = set()
    return None if of_code() <= recorded else _Loader(recorded)


class _Loader(MigrationLoader):
    """Django's loader, for what has been read of the database."""

    def __init__(self, recorded: Iterable[tuple[str, str]]) -> None:
        self._recorded = recorded
        super().__init__(None)

    @property
    def applied_migrations(self) -> dict[tuple[str, str], Any]:
        return self._applied

    @applied_migrations.setter
    def applied_migrations(self, found: object) -> None:
        # Because it has no connection, Django finds none.
        self._applied: dict[tuple[str, str], Any] = dict.fromkeys(self._recorded)


def of_code() -> set[tuple[str, str]]:
    """Return app and name of each migration of this code, as ``MigrationLoader`` finds its file."""
    found: set[tuple[str, str]] = set()
    for label in (app.label for app in apps.get_app_configs()):
        package, _ = MigrationLoader.migrations_module(label)
        spec = importlib.util.find_spec(package) if package else None
        if spec and spec.origin:
            modules = pkgutil.iter_modules(spec.submodule_search_locations)
            names = (name for _, name, is_package in modules if not is_package)
            found |= {(label, name) for name in names if name[0] not in "_~"}
    return found
