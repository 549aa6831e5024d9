"""System checks: what about the configuration cannot work, each with a stable id and a remedy."""

from collections.abc import Iterable, Iterator

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, Error, connections, router

from once import conf
from once.databases import SUPPORTED, of_kind
from once.exceptions import RoutineError, ValueUnknown
from once.models import Completion
from once.record import history
from once.routines import registry, renamed
from once.routines.base import Routine
from once.routines.registry import Registry
from once.startup import early_queries, forking


def check() -> Iterator[CheckMessage]:
    """Check the settings, the routines and their databases, of which none is asked."""
    yield from _check_settings()
    yield from _check_databases()
    yield from _check_routines()
    yield from _check_scopes()
    yield from _check_server()
    yield from _check_imports()


def _check_settings() -> Iterator[CheckMessage]:
    """once.E001: a setting, or the environment variable that overrides it, is invalid."""
    for name, read in conf.NAMES.items():
        try:
            read()
        except ImproperlyConfigured as error:
            hint = f"Correct {name} in the settings, or in the environment, which has precedence."
            yield checks.Error(str(error), hint, id="once.E001")


def _check_scopes() -> Iterator[CheckMessage]:
    """once.E007, E008, E010 and W007: what a scope needs is not there."""
    for routine in registry.load().recorded:
        error = routine.scope_error()
        if error is None:
            continue
        if routine.scope == "release":
            hint = "Set it in the settings or the environment of every process."
            yield checks.Error(str(error), hint, routine.name, id="once.E007")
        elif isinstance(error, ValueUnknown):
            hint = "Have it read settings, the environment, code and files of the release alone."
            yield checks.Warning(str(error), hint, routine.name, id="once.W007")
        elif isinstance(error, RoutineError):
            hint = "Text, bytes, and dictionaries and lists of texts and numbers have a digest."
            yield checks.Error(str(error), hint, routine.name, id="once.E010")
        else:  # content: a further scope gets an id of its own
            hint = "Patterns are relative to the directory of the module that declares it."
            yield checks.Error(str(error), hint, routine.name, id="once.E008")


def _check_server() -> Iterator[CheckMessage]:
    """once.W003: threads do not run in the server that asks."""
    if forking.lacks_threads():
        yield checks.Warning(forking.NO_THREADS, forking.ENABLE_THREADS, id="once.W003")


def _check_imports() -> Iterator[CheckMessage]:
    """once.W005: code of the project, or an app, queried a database before all apps were ready."""
    for query in early_queries.found:
        yield checks.Warning(
            f"{query.module} queried the database {query.using!r} before Django had loaded all "
            f"apps: {query.place}.",
            "Every command and every test does that, before the tables exist and in the real "
            "database. Move it to a routine in routines.py; or ask where the answer is first "
            "needed, in a function with functools.cache where it fills memory.",
            query.module,
            id="once.W005",
        )


def check_records(databases: Iterable[str]) -> Iterator[CheckMessage]:
    """Ask databases for what they record, and check that."""
    registered = registry.load()
    for using in databases:
        routines = [
            routine
            for routine in registered.recorded
            if routine.using == using and routine.scope_error() is None
        ]
        try:
            if routines and history.is_installed(using):
                yield from _check_names(using, routines, registered)
        except (Error, ImproperlyConfigured):
            continue  # because a database that is out of reach says nothing


def _check_names(
    using: str, routines: list[Routine], registered: Registry
) -> Iterator[CheckMessage]:
    """once.W004: a routine may have been renamed, so that it would run again."""
    recorded = history.unknown(using, registered.labels)
    records = history.read(routines)
    new = [name for name, record in records.items() if record.is_untried]
    for suspicion in renamed.suspicions(using, new, registered, recorded):
        yield checks.Warning(suspicion.told, suspicion.remedy, suspicion.new[0], id="once.W004")


def _check_databases() -> Iterator[CheckMessage]:
    """once.E002 to E006 and E009: a database that has routines does not fit."""
    declared = registry.load()
    for using in declared.databases:
        names = ", ".join(each.name for each in declared.recorded if each.using == using)
        if using not in connections.settings:
            yield checks.Error(
                f"The database {using!r} of the routines {names} is not in DATABASES.",
                "Add it to DATABASES, or correct using= of these routines.",
                id="once.E002",
            )
        elif (vendor := connections[using].vendor) not in SUPPORTED:
            yield checks.Error(
                f"The database {using!r} of the routines {names} is of the kind {vendor!r}, for "
                "which there is no lock.",
                f"Supported kinds: {', '.join(SUPPORTED)}.",
                id="once.E003",
            )
        else:
            for check in (_check_driver, _check_autocommit, _check_tenants, _check_router):
                yield from check(using, names)


def _check_driver(using: str, names: str) -> Iterator[CheckMessage]:
    connection = connections[using]
    kind = of_kind(connection)
    if misfit := kind and kind.misfit(connection):
        problem, hint = misfit
        yield checks.Error(f"Database {using!r}: {problem}.", hint, id="once.E004")


def _check_autocommit(using: str, names: str) -> Iterator[CheckMessage]:
    if not connections[using].settings_dict["AUTOCOMMIT"]:
        yield checks.Error(
            f"Database {using!r} of the routines {names} has AUTOCOMMIT off: nothing that they do "
            "would be committed.",
            f"Remove AUTOCOMMIT from DATABASES[{using!r}].",
            id="once.E006",
        )


def _check_tenants(using: str, names: str) -> Iterator[CheckMessage]:
    tenant_apps = getattr(settings, "TENANT_APPS", None)
    # Of django-tenants: a connection sets its schema by that.
    if tenant_apps is None or not hasattr(connections[using], "set_tenant"):
        return
    if not {"once", "once.apps.OnceConfig"} & set(tenant_apps):
        yield checks.Error(
            f"The tenants in database {using!r} have no record of their own, since TENANT_APPS "
            "lack 'once': what ran for one would count as done for all.",
            "List 'once' in TENANT_APPS and in SHARED_APPS, then run `manage.py migrate_schemas`.",
            id="once.E009",
        )


def _check_router(using: str, names: str) -> Iterator[CheckMessage]:
    if not router.allow_migrate_model(using, Completion):
        yield checks.Error(
            f"DATABASE_ROUTERS keep the tables of once out of the database {using!r}, where the "
            f"routines {names} need them: record and effects share a transaction.",
            f"Let allow_migrate() return True for 'once' in {using!r}.",
            id="once.E005",
        )


def _check_routines() -> Iterator[CheckMessage]:
    """once.W001, W002 and W006: a routine does not fit its database, or an old name its name."""
    for routine in registry.load().recorded:
        name, using = routine.name, routine.using
        for old in routine.renamed_from:
            if "." in name and "." not in old:
                yield checks.Warning(
                    f"{name} is renamed_from {old!r}, which has no dot as its own name has.",
                    f'Write the whole old name, "{name.partition(".")[0]}.{old}", or silence this '
                    "where that routine had name= without a dot.",
                    name,
                    id="once.W006",
                )
        if using not in connections.settings:
            continue  # which another check says
        if routine.statement_timeout is not None and connections[using].vendor != "postgresql":
            yield checks.Warning(
                f"The database {using!r} of {name} knows no statement timeout.",
                "Remove statement_timeout=; it is for PostgreSQL.",
                name,
                id="once.W002",
            )
        if using != DEFAULT_DB_ALIAS and not routine.takes_run:
            yield checks.Warning(
                f"The body of {name} takes no `run`, so it does not know that its database is "
                f"{using!r}. What it writes elsewhere is not exactly-once.",
                "Take the parameter `run` and write through .using(run.using).",
                name,
                id="once.W001",
            )
