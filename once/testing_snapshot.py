"""Snapshots of a database and their differences, for the tests of projects."""

from collections.abc import Collection, Iterator
from typing import Any, TypeAlias

from django.apps import apps
from django.db import connections, router
from django.db.models import Model

#: By label of the model and primary key, the values of the fields.
Rows: TypeAlias = dict[tuple[str, Any], dict[str, Any]]

#: Differences that have a line of their own, at most.
_MOST = 10


def rows(using: str, models: Collection[type[Model]] | None, ignore: Collection[str]) -> Rows:
    """Return the rows of models in a database; of all its models by default.

    Args:
        using: its alias.
        models: whose rows, or ``None``.
        ignore: names of fields to leave out, alone or behind the label of their model.

    """
    snapshot: Rows = {}
    for model in _models(using) if models is None else models:
        label = model._meta.label
        fields = [
            field.attname
            for field in model._meta.local_concrete_fields
            if not getattr(field, "auto_now", False)
            and not {field.name, field.attname, f"{label}.{field.name}"} & {*ignore}
        ]
        queryset = model._base_manager.using(using).order_by("pk")
        for key, *values in queryset.values_list("pk", *fields):
            snapshot[label, key] = dict(zip(fields, values, strict=True))
    return snapshot


def compared(before: Rows, after: Rows) -> list[str]:
    """Return a line for each new, gone or changed row, up to ten, and a last line for the rest."""
    lines = list(_differences(before, after))
    more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    return lines[:_MOST] + more


def _differences(before: Rows, after: Rows) -> Iterator[str]:
    for row in {**before, **after}:
        label, key = row
        was, now = before.get(row), after.get(row)
        if was is None:
            yield f"{label} {key!r}: new, {_values(now)}"
        elif now is None:
            yield f"{label} {key!r}: gone, {_values(was)}"
        elif changed := [name for name in was if not _is_same(was[name], now[name])]:
            changes = (f"{name} {was[name]!r} became {now[name]!r}" for name in changed)
            yield f"{label} {key!r}: {', '.join(changes)}"


def _is_same(before: Any, after: Any) -> bool:
    is_nan = before != before and after != after
    return is_nan or bool(before == after)


def _values(row: dict[str, Any] | None) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in (row or {}).items())


def _models(using: str) -> Iterator[type[Model]]:
    tables = {*connections[using].introspection.table_names()}
    for model in apps.get_models(include_auto_created=True):
        options = model._meta
        if (
            options.db_table in tables  # a test may define a model without a table
            and options.managed
            and not options.proxy
            and options.app_label != "once"
            and router.allow_migrate_model(using, model)
        ):
            yield model
