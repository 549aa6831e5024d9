"""Models with a primary key of each type, and the values that its keys may have."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db import connections, models
from hypothesis import strategies as st

__all__ = ["KEYED", "create_tables", "drop_tables"]

_CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
#: From the year 1000 on, as MySQL has it.
_MOMENTS = st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC))
_DAYS = st.dates(date(1000, 1, 1))
_PERIODS = st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000))
_AMOUNTS = st.decimals(Decimal(-(10**8)) + 1, Decimal(10**8) - 1, places=4)

_FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "integer": (models.IntegerField, st.integers(-(2**31), 2**31 - 1)),
    "big": (models.BigIntegerField, st.integers(-(2**63), 2**63 - 1)),
    "float": (models.FloatField, st.floats(allow_nan=False, allow_infinity=False)),
    "decimal": (
        lambda **key: models.DecimalField(max_digits=12, decimal_places=4, **key),
        _AMOUNTS,
    ),
    "text": (lambda **key: models.CharField(max_length=9, **key), st.text(_CHARACTERS, max_size=9)),
    "uuid": (models.UUIDField, st.uuids() | st.integers(0, 9).map(lambda n: uuid.UUID(int=n))),
    "date": (models.DateField, _DAYS),
    "datetime": (models.DateTimeField, _MOMENTS),
    "time": (models.TimeField, st.times() | st.just(time(0))),
    "duration": (models.DurationField, _PERIODS),
    "binary": (models.BinaryField, st.binary(max_size=9)),
    "address": (models.GenericIPAddressField, st.ip_addresses().map(str)),
}


def _model(name: str, field: "models.Field[Any, Any]") -> type[models.Model]:
    meta = type("Meta", (), {"app_label": "shop"})
    body = {"key": field, "Meta": meta, "__module__": __name__}
    return type(f"KeyedBy{name.title()}", (models.Model,), body)


if connections["default"].vendor == "mysql":
    del _FIELDS["binary"]  # no primary key there

#: A model and the values of its keys, by type.
KEYED: dict[str, tuple[type[models.Model], st.SearchStrategy[Any]]] = {
    name: (_model(name, field(primary_key=True)), values)
    for name, (field, values) in _FIELDS.items()
}


def create_tables(using: str) -> None:
    """Create the tables of these models."""
    with connections[using].schema_editor() as editor:
        for model, _ in KEYED.values():
            editor.create_model(model)


def drop_tables(using: str) -> None:
    """Drop the tables of these models."""
    with connections[using].schema_editor() as editor:
        for model, _ in KEYED.values():
            editor.delete_model(model)
