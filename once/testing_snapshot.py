"""What a database holds, and how that differs from what it held: for the tests of projects."""

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, TypeAlias

from django.apps import apps
from django.db import connections, router
from django.db.models import Model

__all__ = ["Rows", "compared", "rows"]

#: By label of the model and primary key, the values of the fields.
Rows: TypeAlias = dict[tuple[str, Any], dict[str, Any]]

#: Differences that are told, at most.
_MOST = 10


def rows(using: str, models: Collection[type[Model]] | None, ignore: Collection[str]) -> Rows:
    """The rows of models in a database: of all that it has, where none are given.

    Args:
        using: its alias.
        models: which.
        ignore: names of fields to leave out, alone or behind the label of their model.

    """
    found: Rows = {}
    for model in _models(using) if models is None else models:
        label = model._meta.label
        fields = [
            field.attname
            for field in model._meta.local_concrete_fields
            if not getattr(field, "auto_now", False)
            and not {field.name, field.attname, f"{label}.{field.name}"} & {*ignore}
        ]
        every = model._base_manager.using(using).order_by("pk")
        for key, *values in every.values_list("pk", *fields):
            found[label, key] = dict(zip(fields, values, strict=True))
    return found


def compared(before: Rows, after: Rows) -> list[str]:
    """A line for each row that is new, gone or changed, and one for those beyond ten."""
    found = list(_differences(before, after))
    more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return [*islice(found, _MOST), *more]


def _differences(before: Rows, after: Rows) -> Iterator[str]:
    for row in {**before, **after}:
        label, key = row
        was, now = before.get(row), after.get(row)
        if was is None:
            yield f"{label} {key!r}: new, {_shown(now)}"
        elif now is None:
            yield f"{label} {key!r}: gone, {_shown(was)}"
        elif changed := [name for name in was if not _is_same(was[name], now[name])]:
            told = (f"{name} {was[name]!r} became {now[name]!r}" for name in changed)
            yield f"{label} {key!r}: {', '.join(told)}"


def _is_same(before: Any, after: Any) -> bool:
    is_nan = before != before and after != after
    return is_nan or bool(before == after)


def _shown(row: dict[str, Any] | None) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in (row or {}).items())


def _models(using: str) -> Iterator[type[Model]]:
    tables = {*connections[using].introspection.table_names()}
    for model in apps.get_models(include_auto_created=True):
        options = model._meta
        if (
            options.db_table in tables  # not of one that a test alone knows
            and options.managed
            and not options.proxy
            and options.app_label != "once"
            and router.allow_migrate_model(using, model)
        ):
            yield model
