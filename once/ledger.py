"""The only code that reads or writes the record.

``lock`` and ``complete`` are parts of a work transaction. ``prospect`` is for the guard's session.
All others are statements of their own: they see what is committed and are durable on return.
"""

import enum
import os
import socket
import uuid
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from django.db import DatabaseError, IntegrityError
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from once import conf
from once.base import Routine
from once.databases import database
from once.exceptions import AttemptLost, CannotFence
from once.models import Attempt, Completion, State

__all__ = [
    "Prospect",
    "Standing",
    "begin",
    "close",
    "complete",
    "is_installed",
    "is_migrated",
    "last_attempts",
    "lock",
    "prospect",
    "record_migrated",
    "recorded",
    "standing",
    "work_name",
]

#: Attempts to look back on for those that were lost in a row.
_LOOK_BACK = 10
#: Each ends the session in the way, waits for its end and tries again: seconds in all.
_FENCE_TRIES = 4


class Standing(enum.Enum):
    """What the record says of a routine of this code."""

    OPEN = "open"
    DONE = "done"
    #: A higher version is recorded, or begun: this one never runs again.
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What the holder of a guard alone can know of the attempt that it may begin."""

    standing: Standing
    #: The number to claim. Whoever claims it second no longer holds the guard.
    number: int
    #: The idempotency key to carry on.
    key: str
    #: Attempts that still have the right to commit.
    predecessors: tuple[Attempt, ...]
    #: How many attempts in a row, the predecessors among them, went without a word.
    lost_in_a_row: int


def standing(routines: Collection[Routine]) -> dict[str, Standing]:
    """How each routine stands, by name.

    One indexed query for each of their databases, and a second one only where something is open.
    """
    found: dict[str, Standing] = {}
    for using in sorted({routine.using for routine in routines}):
        here = [routine for routine in routines if routine.using == using]
        with database(using).statements():
            found |= _standing(using, here)
    return found


def prospect(routine: Routine) -> Prospect:
    """What the next attempt would be. To be read in the session that holds the guard."""
    history = Attempt.objects.using(routine.using).filter(routine=routine.name)
    # The number before the predecessors: whoever claims in between is then in the way of this
    # claim, by the number; read the other way round it would be counted but never fenced.
    latest = list(history.only("number", "state").order_by("-number")[:_LOOK_BACK])
    running = list(history.filter(state=State.RUNNING).order_by("number"))
    same = history.filter(version=routine.version, scope_key=routine.scope_key)
    lost = 0
    for attempt in latest:
        if attempt.state not in (State.RUNNING, State.LOST):
            break
        lost += 1
    return Prospect(
        standing=_standing(routine.using, [routine])[routine.name],
        number=latest[0].number + 1 if latest else 1,
        key=same.order_by("number").values_list("key", flat=True).first() or uuid.uuid4().hex,
        predecessors=tuple(running),
        lost_in_a_row=lost,
    )


def begin(routine: Routine, ahead: Prospect, trigger: str) -> Attempt | None:
    """Claim the next attempt: a row in state running, and with it the right to commit.

    Returns:
        The attempt, or ``None`` where somebody else claimed that number: the guard was lost.

    """
    attempt = Attempt(
        routine=routine.name,
        number=ahead.number,
        version=routine.version,
        scope_key=routine.scope_key,
        key=ahead.key,
        trigger=trigger,
        host=socket.gethostname(),
        pid=os.getpid(),
        release=conf.release(),
    )
    try:
        with database(routine.using).statements():
            attempt.save(using=routine.using, force_insert=True)
    except IntegrityError:
        taken = Attempt.objects.using(routine.using).filter(
            routine=routine.name, number=ahead.number
        )
        if attempt.pk is not None or not taken.exists():
            raise  # not the number's constraint: a receiver's error, or a damaged table
        return None
    return attempt


def close(attempt: Attempt, state: State, error: str = "") -> State:
    """Take an attempt's right to commit, unless it ended before: fence, then read.

    Where a transaction may still commit it, its session is ended first. So what this returns is
    final, also of an attempt whose COMMIT got no answer.

    Returns:
        The state in which the attempt is now for good.

    Raises:
        CannotFence: a session that may still commit could not be ended.

    """
    here = database(str(attempt._state.db))
    row = Attempt.objects.using(here.using).filter(pk=attempt.pk)
    for _ in range(_FENCE_TRIES):
        try:
            with here.statements():
                row.filter(state=State.RUNNING).update(state=state, finished_at=Now(), error=error)
                # Whoever deleted the row took the right to commit as well.
                return State(row.values_list("state", flat=True).first() or State.LOST)
        except DatabaseError as problem:
            if not here.is_locked(problem):
                raise
        here.end_work(work_name(attempt))
    raise CannotFence(
        f"The row of {attempt} is locked by a session that does no work of it. End that session."
    )


def lock(attempt: Attempt) -> None:
    """Keep an attempt's right to commit for the work transaction in hand, until that ends.

    Raises:
        AttemptLost: the attempt has no such right any more.

    """
    row = Attempt.objects.using(attempt._state.db).filter(pk=attempt.pk, state=State.RUNNING)
    if row.select_for_update().first() is None:
        raise _lost(attempt)


def complete(attempt: Attempt) -> None:
    """Record, in the work transaction in hand, that its effects are all there is to do.

    Raises:
        AttemptLost: the attempt has no right to commit any more.

    """
    using = attempt._state.db
    Completion.objects.using(using).create(
        routine=attempt.routine, version=attempt.version, scope_key=attempt.scope_key
    )
    row = Attempt.objects.using(using).filter(pk=attempt.pk, state=State.RUNNING)
    if not row.update(state=State.SUCCEEDED, finished_at=Now()):
        raise _lost(attempt)


def is_installed(using: str) -> bool:
    """Whether the tables of the record exist in a database."""
    connection = database(using).connection
    with connection.cursor() as cursor:
        present = connection.introspection.table_names(cursor)
    return {Attempt._meta.db_table, Completion._meta.db_table} <= set(present)


def last_attempts(using: str) -> dict[str, Attempt]:
    """The last attempt at each routine that a database knows, by name."""
    history = Attempt.objects.using(using)
    last = history.filter(routine=OuterRef("routine")).order_by("-number").values("number")[:1]
    with database(using).statements():
        return {row.routine: row for row in history.filter(number=Subquery(last))}


def recorded(using: str) -> dict[str, Completion]:
    """The completion of the highest version of each routine that a database knows, by name."""
    with database(using).statements():
        rows = list(Completion.objects.using(using).order_by("version", "completed_at"))
    return {row.routine: row for row in rows}


def is_migrated(using: str, name: str, digest: str) -> bool:
    """Whether a database was brought to the migrations of this digest."""
    with database(using).statements():
        return Completion.objects.using(using).filter(routine=name, scope_key=digest).exists()


def record_migrated(using: str, name: str, digest: str) -> None:
    """Record that a database was brought to the migrations of this digest."""
    with suppress(IntegrityError), database(using).statements():
        Completion(routine=name, version=1, scope_key=digest).save(using=using, force_insert=True)


def work_name(attempt: Attempt) -> str:
    """What the work lock of an attempt is called."""
    return f"{attempt.pk}"


def _standing(using: str, routines: Collection[Routine]) -> dict[str, Standing]:
    recorded = _versions(Completion.objects.using(using), routines)
    found = {}
    for routine in routines:
        versions = recorded.get((routine.name, routine.scope_key), {0})
        done = Standing.DONE if routine.version in versions else Standing.OPEN
        found[routine.name] = Standing.SUPERSEDED if max(versions) > routine.version else done
    still_open = [routine for routine in routines if found[routine.name] is Standing.OPEN]
    if still_open:
        begun = _versions(Attempt.objects.using(using).distinct(), still_open)
        for routine in still_open:
            if max(begun.get((routine.name, routine.scope_key), {0})) > routine.version:
                found[routine.name] = Standing.SUPERSEDED
    return found


def _versions(
    rows: "QuerySet[Completion] | QuerySet[Attempt]", routines: Iterable[Routine]
) -> dict[tuple[str, str], set[int]]:
    of_these = rows.filter(routine__in=[routine.name for routine in routines])
    versions: dict[tuple[str, str], set[int]] = {}
    for name, scope_key, version in of_these.values_list("routine", "scope_key", "version"):
        versions.setdefault((name, scope_key), set()).add(version)
    return versions


def _lost(attempt: Attempt) -> AttemptLost:
    return AttemptLost(
        f"{attempt} lost its right to commit: another process took over. Nothing of this "
        "attempt was committed; see `manage.py once status` for who runs it now."
    )
