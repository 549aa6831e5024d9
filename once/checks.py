"""System checks: what about the configuration cannot work, each with a stable id and a remedy."""

from collections.abc import Iterable, Iterator

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, Error, connections, router

from once import conf
from once.databases import SUPPORTED
from once.doctor.kinds import kind
from once.models import Completion
from once.record import history
from once.record.standing import Standing
from once.routines import registry, renamed
from once.routines.base import Routine
from once.startup import early_queries, forking

__all__ = ["check", "check_names"]


def check() -> Iterator[CheckMessage]:
    """Check the settings, the routines and their databases, of which none is asked."""
    yield from _check_settings()
    yield from _check_databases()
    yield from _check_routines()
    yield from _check_scopes()
    yield from _check_server()
    yield from _check_imports()


def _error(code: str, message: str, hint: str, obj: str | None = None) -> CheckMessage:
    return checks.Error(message, hint=hint, obj=obj, id=code)


def _warning(code: str, message: str, hint: str, obj: str | None = None) -> CheckMessage:
    return checks.Warning(message, hint=hint, obj=obj, id=code)


def _check_settings() -> Iterator[CheckMessage]:
    """once.E001: a setting, or the environment variable that overrides it, is invalid."""
    for name, read in conf.NAMES.items():
        try:
            read()
        except ImproperlyConfigured as error:
            hint = f"Correct {name} in the settings, or in the environment, which has precedence."
            yield _error("once.E001", str(error), hint)


def _check_scopes() -> Iterator[CheckMessage]:
    """once.E007: ``ONCE_RELEASE`` is needed and unset. once.E008: a file of a scope is missing."""
    for routine in registry.load().recorded:
        try:
            routine.check_scope()
        except ImproperlyConfigured as error:
            if routine.scope == "release":
                hint = "Set it in the settings or the environment of every process."
                yield _error("once.E007", str(error), hint, routine.name)
            else:  # content: a further scope gets an id of its own
                hint = "Patterns are relative to the directory of the module that declares it."
                yield _error("once.E008", str(error), hint, routine.name)


def _check_server() -> Iterator[CheckMessage]:
    """once.W003: threads do not run in the server that asks."""
    if forking.lacks_threads():
        yield _warning("once.W003", forking.NO_THREADS, forking.ENABLE_THREADS)


def _check_imports() -> Iterator[CheckMessage]:
    """once.W005: code of the project, or an app, queried a database before all apps were ready."""
    for query in early_queries.found:
        yield _warning(
            "once.W005",
            f"{query.module} queried the database {query.using!r} before Django had loaded all "
            f"apps: {query.file}, line {query.line}, in {query.function}.",
            "Every command and every test does that, before the tables exist and in the real "
            "database. Move it to a routine in routines.py; or ask where the answer is first "
            "needed, in a function with functools.cache where it fills memory.",
            query.module,
        )


def check_names(databases: Iterable[str]) -> Iterator[CheckMessage]:
    """once.W004: a routine may have been renamed, so that it would run again."""
    registered = registry.load()
    for using in databases:
        routines = [
            routine
            for routine in registered.recorded
            if routine.using == using and _has_scope(routine)
        ]
        try:
            if not routines or not history.is_installed(using):
                continue
            recorded, records = history.recorded(using), history.read(routines)
        except (Error, ImproperlyConfigured):
            continue  # because a database that is out of reach says nothing about names
        new = [
            name
            for name, record in records.items()
            if record.standing is Standing.OPEN and not record.number
        ]
        for suspicion in renamed.suspicions(using, new, registered.labels, recorded):
            yield _warning("once.W004", suspicion.told, suspicion.remedy, suspicion.new[0])


def _has_scope(routine: Routine) -> bool:
    try:
        routine.check_scope()
    except ImproperlyConfigured:  # which _check_scopes says
        return False
    return True


def _check_databases() -> Iterator[CheckMessage]:
    """once.E002 to E006 and E009: a database that has routines does not fit."""
    declared = registry.load()
    for using in declared.databases:
        names = ", ".join(each.name for each in declared.recorded if each.using == using)
        if using not in connections.settings:
            yield _error(
                "once.E002",
                f"The database {using!r} of the routines {names} is not in DATABASES.",
                "Add it to DATABASES, or correct using= of these routines.",
            )
        elif (vendor := connections[using].vendor) not in SUPPORTED:
            yield _error(
                "once.E003",
                f"The database {using!r} of the routines {names} is of the kind {vendor!r}, for "
                "which there is no lock.",
                f"Supported kinds: {', '.join(SUPPORTED)}.",
            )
        else:
            for check in (_check_driver, _check_autocommit, _check_tenants, _check_router):
                yield from check(using, names)


def _check_driver(using: str, names: str) -> Iterator[CheckMessage]:
    connection = connections[using]
    for problem, hint in kind(connection).problems(connection):
        yield _error("once.E004", f"Database {using!r}: {problem}.", hint)


def _check_autocommit(using: str, names: str) -> Iterator[CheckMessage]:
    if not connections[using].settings_dict["AUTOCOMMIT"]:
        yield _error(
            "once.E006",
            f"Database {using!r} of the routines {names} has AUTOCOMMIT off: nothing that they do "
            "would be committed.",
            f"Remove AUTOCOMMIT from DATABASES[{using!r}].",
        )


def _check_tenants(using: str, names: str) -> Iterator[CheckMessage]:
    tenant_apps = getattr(settings, "TENANT_APPS", None)
    # Of django-tenants: a connection sets its schema by that.
    if tenant_apps is None or not hasattr(connections[using], "set_tenant"):
        return
    if not {"once", "once.apps.OnceConfig"} & set(tenant_apps):
        yield _error(
            "once.E009",
            f"The tenants in database {using!r} have no record of their own, since TENANT_APPS "
            "lack 'once': what ran for one would count as done for all.",
            "List 'once' in TENANT_APPS and in SHARED_APPS, then run `manage.py migrate_schemas`.",
        )


def _check_router(using: str, names: str) -> Iterator[CheckMessage]:
    if not router.allow_migrate_model(using, Completion):
        yield _error(
            "once.E005",
            f"DATABASE_ROUTERS keep the tables of once out of the database {using!r}, where the "
            f"routines {names} need them: record and effects share a transaction.",
            f"Let allow_migrate() return True for 'once' in {using!r}.",
        )


def _check_routines() -> Iterator[CheckMessage]:
    """once.W001 and W002: a routine does not fit its database."""
    for routine in registry.load().recorded:
        name, using = routine.name, routine.using
        if routine.statement_timeout is not None and not _limits_statements(using):
            yield _warning(
                "once.W002",
                f"The database {using!r} of {name} knows no statement timeout.",
                "Remove statement_timeout=; it is for PostgreSQL.",
                name,
            )
        if using != DEFAULT_DB_ALIAS and not routine.takes_run:
            yield _warning(
                "once.W001",
                f"The body of {name} takes no `run`, so it does not know that its database is "
                f"{using!r}. What it writes elsewhere is not exactly-once.",
                "Take the parameter `run` and write through .using(run.using).",
                name,
            )


def _limits_statements(using: str) -> bool:
    # Because another check names an alias that is missing, this one is silent about it.
    return using not in connections.settings or connections[using].vendor == "postgresql"
