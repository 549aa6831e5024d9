"""Gates: operations at the head of migrations that need routines, and what they mean for those.

:mod:`once.engine.gatekeeper` completes the routine of a gate before the migration's transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

from django.db import connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import Migration
from django.db.migrations.operations.base import Operation

from once.databases import unapplied
from once.exceptions import MigrationFailed
from once.record import history
from once.routines import registry
from once.routines.base import Routine

__all__ = ["Behind", "Gate", "behind", "gated", "leading", "passed"]


class Gate(Operation):
    """An operation before which a routine is completed."""

    reduces_to_sql = False
    name: str


def leading(migration: Migration) -> list[Gate]:
    """Return the gates of a migration: the operations of this kind at its head."""
    gates: list[Any] = [*takewhile(lambda each: isinstance(each, Gate), migration.operations)]
    return gates


def gated(gate: Gate, using: str, app_label: str) -> Routine | None:
    """Return the routine of a gate, if that is to be completed in this database.

    Raises:
        MigrationFailed: this code has no such routine.

    """
    if not router.allow_migrate(using, app_label):
        return None
    routine = next((each for each in registry.load().recorded if each.name == gate.name), None)
    if routine is None:
        raise MigrationFailed(
            f"A migration of {app_label} needs the routine {gate.name!r}, which this code does not "
            "have. Restore it; or, where no database is left that lacks it, remove the RunRoutine."
        )
    if routine.version != 1 or routine.scope != "database":
        raise MigrationFailed(
            f"A migration of {app_label} needs the routine {gate.name!r}, so that version= and "
            "scope= cannot have it run again. Give the changed routine another name."
        )
    return routine if routine.using == using else None


@dataclass(frozen=True)
class Ahead:
    """The first gate of a routine that a database has not passed yet."""

    loader: MigrationLoader
    app_label: str
    name: str
    #: Migrations that the gate depends on and the database lacks, as ``app.name``.
    missing: Sequence[str]

    def __str__(self) -> str:
        return f"{self.app_label}.{self.name}"

    @cached_property
    def apps(self) -> Any:
        """The models that the gate's migration finds."""
        return self.loader.project_state((self.app_label, self.name), at_end=False).apps


@dataclass(frozen=True)
class Behind:
    """The migrations of this code that a database lacks, and what that means for routines."""

    using: str
    missing: Sequence[str] = ()
    gates: Mapping[str, Ahead] = field(default_factory=dict)
    #: True if it lacks none, but the tables of the record.
    has_lost_tables: bool = False

    def of(self, routine: Routine) -> Sequence[str]:
        """Return the migrations that block a routine: those behind its gate do not."""
        gate = self.gates.get(routine.name)
        return self.missing if gate is None else gate.missing

    def blocker(self, routine: Routine) -> str:
        """Return why a routine is not run now; or empty."""
        if self.has_lost_tables:
            return history.LOST_TABLES
        missing = self.of(routine)
        return unapplied.blocker(self.using, missing) if missing else ""

    def bound(self, routine: Routine) -> Routine:
        """Return a routine that takes ``apps`` with the models of its gate, where that is ahead."""
        gate = self.gates.get(routine.name)
        if gate is None or not routine.takes_apps:
            return routine
        return routine.with_models(gate.apps)


def behind(using: str, *, is_readable: bool = True) -> Behind:
    """Return what a database lacks; migrations are loaded only where it lacks any.

    Args:
        using: alias of the database.
        is_readable: False if the tables of the record could not be read.

    """
    # In this order, because a migration is recorded after its tables are made.
    missing = unapplied.names(using)
    if not missing:
        return Behind(using, has_lost_tables=not (is_readable or history.is_installed(using)))
    found: dict[str, Ahead] = {}
    executor = MigrationExecutor(connections[using])
    graph = executor.loader.graph
    for migration, _ in executor.migration_plan(graph.leaf_nodes()):
        key = (migration.app_label, migration.name)
        for gate in leading(migration):
            if gate.name not in found:
                before = [".".join(each) for each in graph.forwards_plan(key)[:-1]]
                lacking = [each for each in before if each in missing]
                found[gate.name] = Ahead(executor.loader, *key, lacking)
    return Behind(using, missing, found)


def passed(using: str) -> set[str]:
    """Return the names of routines of which a database has passed a gate."""
    loader = MigrationLoader(connections[using])
    applied = [loader.disk_migrations.get(key) for key in loader.applied_migrations]
    return {gate.name for migration in applied if migration for gate in leading(migration)}
