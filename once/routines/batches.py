"""Goes through a queryset, or another iterable, batch by batch, from any batch on."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from django.db import connections
from django.db.models import Q, QuerySet
from django.db.models.manager import BaseManager

from once.exceptions import BatchError
from once.routines.base import Routine
from once.routines.keys import KeysBeyond, key_of

_POSITION = "position"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cursor:
    """Between two batches: everything before it is committed."""

    #: The field that the rows are in the order of, or "position"; empty where nothing is done.
    by: str = ""
    #: 1, or 2 on the last pass.
    round: int = 1
    #: The key of the last item, or how many items; ``None`` at the start of a round.
    after: str | None = None

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str, routine: Routine, by: str) -> "_Cursor":
        """Return a cursor of this order of items, and of no other one."""
        at = cls(**json.loads(text)) if text else cls()
        if at.by not in ("", by):
            raise BatchError(
                f"over= of {routine} goes by {by} now, but earlier attempts went by {at.by}, so "
                "that where they ended means nothing. Restore it, or raise version= to begin anew."
            )
        return replace(at, by=by)


#: The cursor before the first batch.
START = str(_Cursor())


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The committed part of a batched routine."""

    #: The cursor to go on at; empty at the start.
    cursor: str = ""
    processed: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some items, and where to go on after them."""

    #: A queryset that is not evaluated, or the items themselves.
    found: "QuerySet[Any] | Sequence[Any]"
    count: int
    cursor: str
    is_last: bool
    #: The item before the batch, or empty, and its last item, in the words of failed items.
    before: str = ""
    last: str = ""

    @property
    def place(self) -> str:
        """The items of the batch, for people."""
        if self.count == 1:
            return f"item {self.last}"
        return (
            f"items after {self.before} up to {self.last}"
            if self.before
            else (f"items up to {self.last}")
        )

    @property
    def items(self) -> "QuerySet[Any] | list[Any]":
        """The items for one call of a body: nothing that the body does to them outlasts it."""
        return self.found.all() if isinstance(self.found, QuerySet) else list(self.found)


#: Iterable, but in no order that lasts, or not by item.
_NO_ITEMS = (str, bytes, set, frozenset)
_ITERATOR = QuerySet._iterator.__code__  # type: ignore[attr-defined]


class Batches(ABC):
    """The items of a batched routine. A cursor of other items raises ``BatchError``."""

    #: True if a batch can be read again, and is then as it was.
    is_repeatable: bool
    #: Items that no batch has: those that failed, which a queryset may yield once more.
    left_out: set[str]

    @abstractmethod
    def after(self, cursor: str, size: int) -> Batch:
        """Return the batch after a cursor, of so many items at most."""

    @abstractmethod
    def only(self, item: str) -> Batch:
        """Return the batch of one item, which is empty where that is gone."""

    @abstractmethod
    def total(self, done: Progress) -> int | None:
        """Return the number of items, done items included, or ``None`` if only the end tells."""

    def close(self) -> None:
        """Free what was opened."""


def batches(routine: Routine) -> Batches:
    """Return the items of a batched routine, by calling its ``over``."""
    found: Any = routine.items()
    if isinstance(found, BaseManager):
        found = found.all()
    if isinstance(found, QuerySet):
        return _QuerySetBatches(routine, found.using(routine.using))
    if getattr(found, "gi_code", None) is _ITERATOR:
        # Its cursor on the server would end with the transaction of the first batch.
        raise BatchError(
            f"over= of {routine} returned the iterator() of a queryset. Return the queryset "
            "itself: no more than a batch of it is loaded at a time."
        )
    if not isinstance(found, Iterable) or isinstance(found, _NO_ITEMS):
        raise BatchError(
            f"over= of {routine} returned {type(found).__name__}. Return a queryset, a list, a "
            "file or another iterable of items in an order."
        )
    if routine.last_pass:
        raise BatchError(
            f"last_pass=True of {routine} is for a queryset that leaves out what is done, and "
            f"over= returned {type(found).__name__}. Remove it."
        )
    return _ItemBatches(routine, found)


class _QuerySetBatches(Batches):
    """Keyset pagination: rows in the order of a unique key, in ranges of that key.

    Only keys are read here. The rows are the body's to load, or to change by one statement.
    """

    is_repeatable = True

    def __init__(self, routine: Routine, rows: "QuerySet[Any]") -> None:
        self.left_out = set()
        self._routine = routine
        self._rounds = 2 if routine.last_pass else 1
        self._key = key_of(routine, rows)
        self._by = ",".join(self._key.order)
        self._rows = rows.order_by(*self._key.order)
        #: Size, items left out and connection of the last question for a bound; and that question,
        #: if it is compiled.
        self._bound: tuple[object, KeysBeyond | None] = (None, None)

    def after(self, cursor: str, size: int) -> Batch:
        at = _Cursor.read(cursor, self._routine, self._by)
        # Because the key of its last row bounds a whole batch, no other key of it is loaded.
        bounds = self._whole(at, size)
        if bounds:
            count = size
        else:
            bounds = [*self._key.values(self._beyond(at))[:size]]
            count = len(bounds)
        until = [self._key.until(bounds[-1])] if bounds else []
        found = self._beyond(at, *until) if bounds else self._rows.none()
        last = self._key.written(bounds[-1]) if bounds else ""
        # Without a full batch, the start of another round, if there is one.
        further, is_last = _Cursor(by=self._by, round=at.round + 1), at.round >= self._rounds
        if count == size:
            further, is_last = replace(at, after=last), False
        return Batch(
            found=found,
            count=count,
            cursor=str(further),
            is_last=is_last,
            before=at.after or "",
            last=last,
        )

    def only(self, item: str) -> Batch:
        found = self._rows.filter(self._key.among([self._key.read(item)]))
        count = len(self._key.values(found)[:1])
        return Batch(found=found, count=count, cursor="", is_last=False, last=item)

    def total(self, done: Progress) -> int:
        at = _Cursor.read(done.cursor, self._routine, self._by)
        left = self._beyond(at).count() if at.round <= self._rounds else 0
        return done.processed + left

    def _whole(self, at: _Cursor, size: int) -> list[tuple[Any, ...]]:
        """Return the key of the last row of a whole batch, or no key where a batch has less."""
        asked, bound = self._bound
        # The number stands for the items, because they only become more.
        asking = (size, len(self.left_out), connections[self._rows.db])
        if at.after is not None and bound and asked == asking:
            return bound.find(self._key.read(at.after))
        last = slice(size - 1, size)
        keys = self._key.values(self._beyond(at))[last]
        if at.after is not None and asked != asking:
            self._bound = asking, None
            with suppress(Exception):  # as of a lookup that computes with the value itself
                bound = KeysBeyond(self._key, self._beyond(replace(at, after=None)), last)
                if bound.is_like(keys, self._key.read(at.after)):
                    self._bound = asking, bound
        return [*keys]

    def _beyond(self, at: _Cursor, *conditions: Q) -> "QuerySet[Any]":
        if at.after is not None:
            conditions = (self._key.beyond(self._key.read(at.after)), *conditions)
        rows = self._rows.filter(*conditions)
        if self.left_out:
            rows = rows.exclude(self._key.among([*map(self._key.read, sorted(self.left_out))]))
        return rows


class _ItemBatches(Batches):
    """Items by their position, for which they must come in the same order every time.

    An item that a body changed, or an iterator that raised, is not what it was: what is to be
    repeated begins with a new call of ``over``.
    """

    is_repeatable = False

    def __init__(self, routine: Routine, items: Iterable[Any]) -> None:
        self.left_out = set()
        self._routine = routine
        self._items = items
        self._rest: Iterator[Any] = iter(items)
        self._position = 0

    def after(self, cursor: str, size: int) -> Batch:
        start = self._at(cursor)
        # Batches come one after the other; only the first may begin further on.
        self._position += sum(1 for _ in islice(self._rest, start - self._position))
        if self._position != start:
            raise self._changed(f"only {self._position} items now, and {start} are done")
        items = tuple(islice(self._rest, size))
        self._position += len(items)
        return Batch(
            found=items,
            count=len(items),
            cursor=str(_Cursor(by=_POSITION, after=str(self._position))),
            is_last=len(items) < size,
            before=str(start) if start else "",
            last=str(self._position),
        )

    def only(self, item: str) -> Batch:
        # A new call of over= has the items before it once more.
        return self.after(str(_Cursor(by=_POSITION, after=str(int(item) - 1))), 1)

    def total(self, done: Progress) -> int | None:
        if not isinstance(self._items, Sized):
            return None
        total = len(self._items)
        if self._at(done.cursor) and done.total not in (None, total):
            raise self._changed(f"{total} items now, and {done.total} in an earlier attempt")
        return total

    def close(self) -> None:
        if callable(close := getattr(self._items, "close", None)):
            close()

    def _at(self, cursor: str) -> int:
        return int(_Cursor.read(cursor, self._routine, _POSITION).after or 0)

    def _changed(self, how: str) -> BatchError:
        return BatchError(
            f"over= of {self._routine} returned {how}, so that the position where that one ended "
            "is another item. Restore the items, or raise version= to begin anew."
        )
