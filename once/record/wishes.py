"""Wishes of people for routines: pauses, runs now, and another pace. Attempts only read them."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from django.db import IntegrityError
from django.db.models import Max

from once.databases import database, tables
from once.models import Attempt, Wish
from once.routines.base import Routine
from once.text import inline, written
from once.words import gettext

#: Wishes of other processes, made at the same moment, after which this one is given up.
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The pace of batches: as the routine declares it, or as a person set it."""

    #: Items in a batch, at most.
    batch_size: int
    #: Seconds to rest between batches.
    rest: float
    #: Seconds that a batch should take, by which its size is chosen; ``None`` for no such wish.
    batch_seconds: float | None


#: The options of a routine that a person may set.
VALUES = tuple(field.name for field in fields(Pace))


def pace(routine: Routine, wish: Wish | None) -> Pace:
    """Return the pace of a routine: a wish for another version of it counts for nothing."""
    declared = {name: getattr(routine, name) for name in VALUES}
    is_for_it = wish is not None and wish.version == routine.version
    return Pace(**declared | (values(wish) if wish and is_for_it else {}))


def values(wish: Wish) -> dict[str, Any]:
    """Return the options that a wish sets, with their values."""
    return {name: getattr(wish, name) for name in VALUES if getattr(wish, name) is not None}


def last(using: str, names: Collection[str]) -> dict[str, Wish]:
    """Return the last wish for each of these routines, by name, where there is any."""
    rows = Wish.objects.using(using).filter(routine__in=names)
    # In this order, so that the last one stays; a person makes few.
    return {row.routine: row for row in rows.order_by("number")}


def paused(using: str, names: Collection[str]) -> set[str]:
    """Return those of these routines that are paused. A part of the reading of their record."""
    return _last_says(using, names, "is_paused")


def wanted(using: str, names: Collection[str]) -> set[str]:
    """Return those of these routines that a person wants run, and no attempt began since.

    Because an attempt has a number of its own, one process alone answers a wish.
    """
    attempts = tables.quoted(database(using).connection, "attempt")
    last = f"SELECT COALESCE(MAX(number), 0) FROM {attempts} WHERE routine = own.routine"
    return _last_says(using, names, f"run_after = ({last})")


def _last_says(using: str, names: Collection[str], what: str) -> set[str]:
    # Not through a queryset, which takes longer to build than the server to answer.
    here = database(using)
    table = tables.quoted(here.connection, "wish")
    condition, values = here.among([*names])
    sql = (
        f"SELECT routine FROM {table} AS own WHERE routine {condition} AND {what} AND NOT EXISTS"
        f" (SELECT 1 FROM {table} WHERE routine = own.routine AND number > own.number)"
    )
    return {name for (name,) in tables.ask(here.connection, sql, values)}


def explain(using: str, name: str) -> str:
    """Say that a person paused a routine, as far as that is still so."""
    with database(using).statements():
        wish = last(using, [name]).get(name)
    is_paused = wish is not None and wish.is_paused
    return paused_by(wish) if wish and is_paused else "It was paused, and was resumed meanwhile."


def paused_by(wish: Wish) -> str:
    """Say that a person paused a routine, and how it goes on."""
    paused = gettext("Paused by {}").format(wish.user) if wish.user else gettext("Paused")
    why = f" ({inline(wish.reason)})" if wish.reason else ""
    then = gettext("`manage.py once resume {}` has it go on.").format(wish.routine)
    return f"{paused}{why}. {then}"


def history(using: str, name: str) -> list[Wish]:
    """Return all wishes for a routine, the last one first."""
    with database(using).statements():
        return list(Wish.objects.using(using).filter(routine=name).order_by("-number"))


def add(
    using: str, name: str, kind: Wish.Kind, *, version: int = 0, user: str, reason: str, **set_: Any
) -> Wish | None:
    """Record what a person wants of a routine, durable on return; all else stays as it was.

    Args:
        using: alias of the database of the routine's record.
        name: the routine's name.
        kind: pause, resume, set or run.
        version: the version of the routine that values are set for.
        user: the person.
        reason: why.
        set_: the values, by name of the option; ``None`` for what the code declares.

    Returns:
        The wish, or ``None`` if the same was wanted already.

    """
    here = database(using)

    def insert(texts: dict[str, str]) -> Wish | None:
        with here.statements():
            before = last(using, [name]).get(name, Wish(number=0))
            number = _last_attempt(using, name) if kind == Wish.Kind.RUN else None
        wish = _next(before, name, kind, version, number)
        if wish is not None:
            for option, value in {**texts, **set_}.items():
                setattr(wish, option, value)
            with here.statements():
                wish.save(using=using, force_insert=True)
        return wish

    for tries_left in reversed(range(_TRIES)):
        try:
            return written(insert, {"user": user[:255], "reason": reason}, here.is_unwritable_text)
        except IntegrityError:  # because another process has taken the number
            if not tries_left:
                raise
    raise AssertionError


def _last_attempt(using: str, name: str) -> int:
    rows = Attempt.objects.using(using).filter(routine=name)
    return int(rows.aggregate(last=Max("number", default=0))["last"])


def _next(
    before: Wish, name: str, kind: Wish.Kind, version: int, number: int | None
) -> Wish | None:
    """Return the wish after another wish, or ``None`` if that says the same already."""
    is_about_pause = kind in (Wish.Kind.PAUSE, Wish.Kind.RESUME)
    is_paused = kind == Wish.Kind.PAUSE if is_about_pause else before.is_paused
    run_after = number if kind == Wish.Kind.RUN else before.run_after
    is_new = (is_paused, run_after) != (before.is_paused, before.run_after)
    if kind != Wish.Kind.SET and not is_new:
        return None
    wish = Wish(
        routine=name,
        number=before.number + 1,
        kind=kind,
        is_paused=is_paused,
        run_after=run_after,
        version=version or before.version,
    )
    if before.version == wish.version:
        for option, value in values(before).items():
            setattr(wish, option, value)
    return wish
