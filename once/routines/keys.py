"""The keys by which rows are gone through: their order, and conditions on ranges of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist
from django.db import connections
from django.db.models import CompositePrimaryKey, Field, Q, Value
from django.db.models.constants import LOOKUP_SEP

from once.exceptions import BatchError
from once.routines.base import Routine

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Fields that are never NULL, and of which no two rows have the same values."""

    fields: "tuple[Field[Any, Any], ...]"
    #: Of each field, True if it descends.
    descends: tuple[bool, ...]

    @property
    def order(self) -> list[str]:
        """Its fields as ``order_by()`` takes them, by column, so that no relation adds its own."""
        ways = zip(self.fields, self.descends, strict=True)
        return [f"{'-' * descends}{field.attname}" for field, descends in ways]

    def values(self, rows: "QuerySet[Any]") -> "QuerySet[Any, tuple[Any, ...]]":
        """Return the keys of rows, of which nothing else is read."""
        found = rows.prefetch_related(None).values_list(*(field.attname for field in self.fields))
        found.query.select_for_update = False  # the rows are locked where they are loaded
        return found

    def beyond(self, values: Sequence[Any]) -> Q:
        """Return the condition that a key comes after another key."""
        return self._compared(values, after=True)

    def until(self, values: Sequence[Any]) -> Q:
        """Return the condition that a key is another key, or comes before."""
        return self._compared(values, after=False)

    def among(self, keys: Sequence[Sequence[Any]]) -> Q:
        """Return the condition that a key is one of these keys, of which there is at least one."""
        names = [field.attname for field in self.fields]
        if len(names) == 1:
            return Q((f"{names[0]}{LOOKUP_SEP}in", [value for (value,) in keys]))
        return reduce(or_, (Q(*zip(names, values, strict=True)) for values in keys))

    def _compared(self, values: Sequence[Any], *, after: bool) -> Q:
        # Written out, because not every database compares rows, nor those of mixed directions.
        *first, last = zip(self.fields, self.descends, values, strict=True)
        condition = _beside(*last, after=after, or_equal=not after)
        for each in reversed(first):
            same = Q((each[0].attname, each[2]))
            # The first part is for the index, which an OR at the top would not let be used.
            condition = _beside(*each, after=after, or_equal=True) & (
                _beside(*each, after=after, or_equal=False) | (same & condition)
            )
        return condition

    def written(self, values: Sequence[Any]) -> str:
        """Return a key as text, for the cursor."""
        texts = [
            field.value_to_string(SimpleNamespace(**{field.attname: value}))  # type: ignore[arg-type]
            for field, value in zip(self.fields, values, strict=True)
        ]
        return texts[0] if len(texts) == 1 else json.dumps(texts)

    def read(self, text: str) -> list[Any]:
        """Return the key that such a text is of."""
        texts = [text] if len(self.fields) == 1 else json.loads(text)
        return [field.to_python(each) for field, each in zip(self.fields, texts, strict=True)]


class _Parameter(Value):
    """A value that a compiled statement has anew each time that it is executed."""

    def resolve_expression(self, *_: Any, **__: Any) -> "_Parameter":
        return self  # and not a copy, which would keep its first value

    def as_sql(self, *_: Any) -> Any:
        return "%s", [self]

    def prepared(self, connection: Any) -> Any:
        return self.output_field.get_db_prep_value(self.value, connection)


class KeysBeyond:
    """The question for keys that come after a key. It is compiled once.

    Because Django takes as long to build a question as a server to answer it.
    """

    def __init__(self, key: Key, rows: "QuerySet[Any]", part: slice) -> None:
        self._parameters = [_Parameter(None, output_field=field) for field in key.fields]
        keys = key.values(rows.filter(key.beyond(self._parameters)))[part]
        self._compiler: Any = keys.query.get_compiler(keys.db)
        self._sql, self._params = self._compiler.as_sql()
        self._compiler.as_sql = lambda: (self._sql, [*map(self._filled, self._params)])

    def find(self, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the keys that come after the key of these values."""
        self._fill(values)
        return [*self._compiler.results_iter(tuple_expected=True)]

    def is_like(self, keys: "QuerySet[Any]", values: Sequence[Any]) -> bool:
        """True if Django itself asks the same for keys after the key of these values.

        It may not, because a field or a lookup may have a way of its own to prepare a value.
        """
        self._fill(values)
        sql, params = keys.query.get_compiler(keys.db).as_sql()
        return bool(self._compiler.as_sql() == (sql, [*params]))

    def _fill(self, values: Sequence[Any]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.value = value

    def _filled(self, param: Any) -> Any:
        is_own = isinstance(param, _Parameter)
        return param.prepared(self._compiler.connection) if is_own else param


def _beside(
    field: "Field[Any, Any]", descends: bool, value: Any, *, after: bool, or_equal: bool
) -> Q:
    lookup = f"{'gt' if after is not descends else 'lt'}{'e' if or_equal else ''}"
    return Q((f"{field.attname}{LOOKUP_SEP}{lookup}", value))


def key_of(routine: Routine, rows: "QuerySet[Any]") -> Key:
    """Return the key that the rows of a routine are in the order of.

    Raises:
        BatchError: they cannot be gone through by a key.

    """
    if rows._fields is not None:  # type: ignore[attr-defined]
        raise BatchError(
            f"over= of {routine} returned a queryset with values() or values_list(). Return one "
            "of model instances; only() and defer() load less of them."
        )
    query = rows.query
    if query.is_sliced or query.combinator or query.distinct_fields or not query.standard_ordering:
        raise BatchError(
            f"over= of {routine} returned a queryset that is sliced, reversed, combined or "
            "distinct on some fields, which cannot be gone through by a key. Use filter() and "
            "order_by() instead."
        )
    order = [str(each) for each in query.order_by or ("pk",)]
    fields: list[Any] = []
    descends: list[bool] = []
    for each in order:
        found = _fields(rows.model, each.removeprefix("-"))
        fields += found
        descends += [each.startswith("-")] * len(found)
    if not _is_unique(rows.model, fields):
        raise BatchError(
            f"over= of {routine} must be in the order of one unique field that is never NULL, or "
            f"of several that are unique together, not of {', '.join(order)}. Write .order_by() "
            "with such fields, or leave the order to the primary key."
        )
    for field in fields:
        digits = getattr(field, "max_digits", None) or 0  # of a DecimalField
        if digits > 15 and connections[rows.db].vendor == "sqlite":
            raise BatchError(
                f"over= of {routine} is in the order of {field.name}, of which SQLite keeps 15 "
                f"digits and not {digits}. Order by another unique field."
            )
    return Key(fields=tuple(fields), descends=tuple(descends))


def _fields(model: "type[Model]", name: str) -> list[Any]:
    """Return the fields of the columns that a name in ``order_by()`` means; ``None`` for no field.

    Of a composite primary key there are several.
    """
    try:
        field: Any = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        return [None]
    return list(field.fields) if isinstance(field, CompositePrimaryKey) else [field]


def _is_unique(model: "type[Model]", fields: list[Any]) -> bool:
    """True if fields have columns, are never NULL, and no two rows have the same values of them."""
    for field in fields:
        if not isinstance(field, Field) or not field.column or field.null:
            return False
    meta, names = model._meta, {field.name for field in fields}
    sets = [*meta.unique_together, *(each.fields for each in meta.total_unique_constraints)]
    sets += [[field.name] for field in fields if field.unique]
    if isinstance(meta.pk, CompositePrimaryKey):
        sets.append([field.name for field in meta.pk.fields])
    return any(names.issuperset(each) for each in sets)
