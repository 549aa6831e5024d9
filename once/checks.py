"""System checks: what about the configuration cannot work, each with a stable id and a remedy."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, Error, connections, router

from once import conf, early, registry, server
from once.base import CALL, RESERVED, Routine
from once.models import Completion

__all__ = [
    "check_databases",
    "check_imports",
    "check_names",
    "check_scopes",
    "check_server",
    "check_settings",
    "register",
]


def register() -> None:
    """Have Django run these checks."""
    checks.register(check_settings, "once")
    checks.register(check_databases, "once")
    checks.register(check_scopes, "once")
    checks.register(check_server, "once")
    checks.register(check_imports, "once")
    checks.register(check_names, checks.Tags.database)  # by no other tag: it asks databases


def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """once.E001: a setting, or the environment variable that overrides it, is invalid."""
    problems: list[CheckMessage] = []
    for name, read in conf.NAMES.items():
        try:
            read()
        except ImproperlyConfigured as error:
            hint = f"Correct {name} in the settings, or in the environment, which has precedence."
            problems.append(checks.Error(str(error), hint=hint, id="once.E001"))
    return problems


def check_scopes(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """once.E007: ``ONCE_RELEASE`` is needed and unset. once.E008: a file of a scope is missing."""
    problems: list[CheckMessage] = []
    for routine in registry.load().recorded:
        try:
            routine.check_scope()
        except ImproperlyConfigured as error:
            is_release = routine.scope == "release"
            problems.append(
                checks.Error(
                    str(error),
                    hint="Set it in the settings or the environment of every process."
                    if is_release
                    else "Patterns are relative to the directory of the module that declares it.",
                    obj=routine.name,
                    id="once.E007" if is_release else "once.E008",
                )
            )
    return problems


def check_server(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """once.W003: threads do not run in the server that asks."""
    if not server.lacks_threads():
        return []
    return [checks.Warning(server.NO_THREADS, hint=server.ENABLE_THREADS, id="once.W003")]


def check_imports(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """once.W005: code of the project queried a database before every app was ready."""
    return [
        checks.Warning(
            f"{one.module} queried the database {one.using!r} before Django had loaded all apps: "
            f"{one.file}, line {one.line}, in {one.function}.",
            hint="Every command and every test does that, before the tables exist and in the real "
            "database. Move it to a routine in routines.py; or ask where the answer is first "
            "needed, in a function with functools.cache where it fills memory.",
            obj=one.module,
            id="once.W005",
        )
        for one in early.found
    ]


def check_names(
    app_configs: Sequence[AppConfig] | None = None,
    databases: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[CheckMessage]:
    """once.W004: a routine may have been renamed, so that it would run again."""
    problems: list[CheckMessage] = []
    found = registry.load()
    for using in databases or ():
        routines = [one for one in found.recorded if one.using == using and _has_scope(one)]
        try:
            gone, new = _gone_and_new(using, {*found.labels}, routines)
        except (Error, ImproperlyConfigured):
            continue  # out of reach, or none that is supported: no fault of a name
        for routine in new:
            label = found.labels[routine.name] or _label(routine.name)
            if suspects := [name for name in gone if _label(name) == label]:
                problems.append(
                    checks.Warning(
                        f"{routine.name} is new and would run, while database {using!r} has a "
                        f"record of {', '.join(suspects)}, which this code does not have. If it "
                        "was renamed or moved, its effects exist already.",
                        hint=f'Renamed: pin the old name, @routine(name="{suspects[0]}"), or '
                        f"record the new one by `manage.py once run --fake {routine.name}`. "
                        "Not renamed: nothing to do, and this is not said any more once it ran.",
                        obj=routine.name,
                        id="once.W004",
                    )
                )
    return problems


def check_databases(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """once.E002 to E006, E009, W001 and W002: a routine's database does not fit."""
    from once.databases import SUPPORTED, database  # guards and all: for those who ask

    problems: list[CheckMessage] = []
    routines = registry.load().recorded
    for using in sorted({routine.using for routine in routines}):
        names = ", ".join(routine.name for routine in routines if routine.using == using)
        if using not in connections.settings:
            problems.append(
                checks.Error(
                    f"The database {using!r} of the routines {names} is not in DATABASES.",
                    hint="Add it to DATABASES, or correct using= of these routines.",
                    id="once.E002",
                )
            )
        elif (vendor := connections[using].vendor) not in SUPPORTED:
            problems.append(
                checks.Error(
                    f"The database {using!r} of the routines {names} is of the kind {vendor!r}, "
                    "for which there is no guard.",
                    hint=f"Supported kinds: {', '.join(SUPPORTED)}.",
                    id="once.E003",
                )
            )
        else:
            problems += [
                checks.Error(f"Database {using!r}: {problem}.", hint=hint, id="once.E004")
                for problem, hint in database(using).problems()
            ]
            if not connections[using].settings_dict["AUTOCOMMIT"]:
                problems.append(
                    checks.Error(
                        f"Database {using!r} of the routines {names} has AUTOCOMMIT off: nothing "
                        "that they do would be committed.",
                        hint=f"Remove AUTOCOMMIT from DATABASES[{using!r}].",
                        id="once.E006",
                    )
                )
            if _is_left_out_of_tenants(using):
                problems.append(
                    checks.Error(
                        f"The tenants in database {using!r} have no record of their own, since "
                        "TENANT_APPS lack 'once': what ran for one would count as done for all.",
                        hint="List 'once' in TENANT_APPS and in SHARED_APPS, then run "
                        "`manage.py migrate_schemas`.",
                        id="once.E009",
                    )
                )
            if not router.allow_migrate_model(using, Completion):
                problems.append(
                    checks.Error(
                        f"DATABASE_ROUTERS keep the tables of once out of the database {using!r}, "
                        f"where the routines {names} need them: record and effects share a "
                        "transaction.",
                        hint=f"Let allow_migrate() return True for 'once' in {using!r}.",
                        id="once.E005",
                    )
                )
    for routine in routines:
        if routine.statement_timeout is not None and not _limits_statements(routine.using):
            problems.append(
                checks.Warning(
                    f"The database {routine.using!r} of {routine.name} knows no statement timeout.",
                    hint="Remove statement_timeout=; it is for PostgreSQL.",
                    obj=routine.name,
                    id="once.W002",
                )
            )
        if routine.using != DEFAULT_DB_ALIAS and not routine.takes_run:
            problems.append(
                checks.Warning(
                    f"The body of {routine.name} takes no `run`, so it does not know that its "
                    f"database is {routine.using!r}. What it writes elsewhere is not exactly-once.",
                    hint="Take the parameter `run` and write through .using(run.using).",
                    obj=routine.name,
                    id="once.W001",
                )
            )
    return problems


def _gone_and_new(
    using: str, known: set[str], routines: list[Routine]
) -> tuple[list[str], list[Routine]]:
    """Names that are recorded and not in this code, and routines that were never tried."""
    from once import record

    if not routines or not record.is_installed(using):
        return [], []
    others = [name for name in record.recorded(using) if name not in known]
    gone = sorted(name for name in others if not name.startswith((CALL, RESERVED)))
    if not gone:
        return [], []
    stands = record.read(routines)
    is_new = {
        name for name, at in stands.items() if at.standing is record.Standing.OPEN and not at.number
    }
    return gone, [one for one in routines if one.name in is_new]


def _has_scope(routine: Routine) -> bool:
    try:
        routine.check_scope()
    except ImproperlyConfigured:
        return False  # said by another check
    return True


def _label(name: str) -> str:
    return name.partition(".")[0]


def _is_left_out_of_tenants(using: str) -> bool:
    """Whether django-tenants keeps a schema for each tenant there, without the tables of once."""
    tenant_apps = getattr(settings, "TENANT_APPS", None)
    if tenant_apps is None or not hasattr(connections[using], "set_tenant"):
        return False
    return not {"once", "once.apps.OnceConfig"} & set(tenant_apps)


def _limits_statements(using: str) -> bool:
    return using not in connections.settings or connections[using].vendor == "postgresql"
