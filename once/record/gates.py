"""Gates: operations at the head of migrations that need routines, and what they mean for those.

:mod:`once.migrating.gatekeeper` completes the routine of a gate before the migration's transaction.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, takewhile
from typing import Any

from django.db import connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import Migration
from django.db.migrations.operations.base import Operation

from once.databases import unapplied
from once.exceptions import MigrationFailed, RoutineError
from once.models import Completion
from once.record import history
from once.routines import registry
from once.routines.base import Routine


class Gate(Operation):
    """An operation before which a routine is completed."""

    reduces_to_sql = False
    name: str
    #: True if the migration may follow although items of the routine failed.
    allow_failed_items: bool


def leading(migration: Migration) -> list[Gate]:
    """Return the gates of a migration: the operations of this kind at its head."""
    gates: list[Any] = [*takewhile(lambda each: isinstance(each, Gate), migration.operations)]
    return gates


def elided(loader: MigrationLoader, migration: Migration) -> list[Gate]:
    """Return the gates that a squashed migration has left out, where its app begins with it."""
    if any(label == migration.app_label for label, _ in migration.dependencies):
        return []  # because its tables have rows
    kept = {gate.name for gate in leading(migration)}
    replaced = [loader.disk_migrations.get(key) for key in migration.replaces]
    gates = [gate for each in replaced if each for gate in leading(each)]
    return [gate for gate in gates if gate.name not in kept]


def inside(operation: Any) -> int:
    """Return the number of gates in an operation, and in the operations that it consists of."""
    parts = getattr(operation, "database_operations", ())
    return isinstance(operation, Gate) + sum(map(inside, parts))


def gated(gate: Gate, using: str, app_label: str) -> Routine | None:
    """Return the routine of a gate, if that is to be completed in this database.

    Raises:
        MigrationFailed: this code has no such routine.

    """
    if not router.allow_migrate(using, app_label):
        return None
    declared = registry.load()
    name = declared.current(gate.name)
    routine = next((each for each in declared.recorded if each.name == name), None)
    if routine is None:
        raise MigrationFailed(
            f"A migration of {app_label} needs the routine {gate.name!r}, which this code does not "
            "have. Correct the name in the RunRoutine. If the routine was renamed, pass it "
            f"renamed_from={gate.name!r}. If it was deleted, restore it; or, where no database is "
            "left that lacks the migration, remove the RunRoutine."
        )
    if routine.version != 1 or routine.scope != "database":
        raise MigrationFailed(
            f"A migration of {app_label} needs the routine {gate.name!r}, which may have neither "
            'version= nor a scope other than "database". Give the changed routine another name.'
        )
    return routine if routine.using == using else None


@dataclass(frozen=True)
class Ahead:
    """The first gate of a routine that a database has not passed yet."""

    app_label: str
    name: str
    #: Migrations of the record, and those that the gate depends on, that the database lacks.
    missing: Sequence[str]

    def __str__(self) -> str:
        return f"{self.app_label}.{self.name}"


@dataclass(frozen=True)
class Behind:
    """The migrations of this code that a database lacks, and what that means for routines."""

    using: str
    missing: Sequence[str] = ()
    gates: Mapping[str, Ahead] = field(default_factory=dict)
    #: True if it lacks none, but the tables of the record.
    has_lost_tables: bool = False
    #: True while a migration waits, so that what has no gate of its own is to run before it.
    is_migrating: bool = False

    def of(self, routine: Routine) -> Sequence[str]:
        """Return the migrations that block a routine: those behind its gate do not."""
        gate = self.gates.get(routine.name)
        if gate is None:
            return () if self.is_migrating else self.missing
        return gate.missing

    def blocker(self, routine: Routine) -> str:
        """Return why a routine is not run now; or empty."""
        if self.has_lost_tables:
            return history.LOST_TABLES
        missing = self.of(routine)
        if missing and self.is_migrating:
            return (
                f"Its own migration {self.gates[routine.name]} comes later, after "
                f"{', '.join(missing)}. Name these in the dependencies of the migration that waits."
            )
        return unapplied.blocker(self.using, missing) if missing else ""

    def bound(self, routine: Routine) -> Routine:
        """Return a routine that takes ``apps`` with the models of its gate, where that is ahead."""
        if self.is_migrating or routine.name not in self.gates or not routine.takes_apps:
            return routine
        return routine.with_models(self.models)

    @cached_property
    def models(self) -> Any:
        """The models by the migrations that the database has, as its gates find them."""
        executor: Any = MigrationExecutor(connections[self.using])
        return executor._create_project_state(with_applied_migrations=True).apps


def behind(using: str, *, is_readable: bool = True, is_migrating: bool = False) -> Behind:
    """Return what a database lacks; migrations are loaded only where it lacks any.

    Args:
        using: alias of the database.
        is_readable: False if the tables of the record could not be read.
        is_migrating: True if a migration waits for the routines that are asked about.

    """
    # In this order, because a migration is recorded after its tables are made.
    loader = unapplied.loaded(using)
    keys = unapplied.ahead(loader) if loader else []
    if loader is None or not keys:
        return Behind(using, has_lost_tables=not (is_readable or history.is_installed(using)))
    found: dict[str, Ahead] = {}
    own = f"{Completion._meta.app_label}."
    missing = [".".join(key) for key in keys]
    for key in keys:
        for name in _names(loader.graph.nodes[key]):
            if name not in found:
                needed = {".".join(each) for each in loader.graph.forwards_plan(key)[:-1]}
                lacking = [each for each in missing if each in needed or each.startswith(own)]
                found[name] = Ahead(*key, lacking)
    return Behind(using, missing, found, is_migrating=is_migrating)


def before(routine: Routine) -> tuple[str, str | None]:
    """Return the migration of the same app before the first gate of a routine, or none there.

    Raises:
        RoutineError: no migration needs the routine.

    """
    graph = MigrationLoader(connections[routine.using]).graph
    for node in graph.leaf_nodes():
        for key in graph.forwards_plan(node):
            if routine.name in _names(graph.nodes[key]):
                parents = (each.key for each in graph.node_map[key].parents)
                return next((each for each in parents if each[0] == key[0]), (key[0], None))
    raise RoutineError(f"No migration needs {routine.name}: none has a RunRoutine of it.")


def passed(using: str) -> Counter[str]:
    """Return the names of routines of which a database has passed gates, in how many migrations."""
    loader = MigrationLoader(connections[using])
    applied = [loader.graph.nodes.get(key) for key in loader.applied_migrations]
    return Counter(chain.from_iterable(_names(migration) for migration in applied if migration))


def _names(migration: Migration) -> set[str]:
    """Return the present names of the routines that a migration needs."""
    current = registry.load().current
    return {current(gate.name) for gate in leading(migration)}
