"""The life of an attempt: the only code that writes the record.

``lock``, ``advance``, ``complete``, ``undo`` and ``rehearse`` are parts of a work transaction.
``prospect`` is for the guard's session. All others are statements of their own, durable on return.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from django.db import DatabaseError, IntegrityError, models, transaction
from django.db.models import F, QuerySet

from once import conf, record
from once.base import Routine
from once.databases import database
from once.exceptions import AttemptLost, CannotFence
from once.models import DECISIONS, Attempt, Completion, Now, State, Trigger
from once.record import Record

__all__ = [
    "Progress",
    "Prospect",
    "advance",
    "begin",
    "close",
    "complete",
    "lock",
    "progress",
    "prospect",
    "record_migrated",
    "rehearse",
    "resume",
    "undo",
    "work_name",
]

#: Each ends the session in the way, waits for its end and tries again: seconds in all.
_FENCE_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What the holder of a guard alone can know of the attempt that it may begin."""

    record: Record
    #: The number to claim. Whoever claims it second no longer holds the guard.
    number: int
    #: The idempotency key to carry on.
    key: str
    #: Attempts that still have the right to commit.
    predecessors: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the batches of a routine are committed."""

    #: Where to go on, as :mod:`once.batches` writes it; empty at the start.
    cursor: str = ""
    processed: int = 0
    total: int | None = None


def prospect(routine: Routine) -> Prospect:
    """What the next attempt would be. To be read in the session that holds the guard."""
    # The number before the predecessors: whoever claims in between is then in the way of this
    # claim, by the number; read the other way round it would be counted but never fenced.
    found = record.read_under_guard(routine)
    key: str | None = None
    running: tuple[Attempt, ...] = ()
    if found.own_number:
        key = _of_completion(routine).order_by("-number").values_list("key", flat=True).first()
    if found.has_running:
        history = Attempt.objects.using(routine.using).filter(routine=routine.name)
        running = tuple(history.filter(state=State.RUNNING).order_by("number"))
    return Prospect(
        record=found, number=found.number + 1, key=key or _new_key(), predecessors=running
    )


def begin(
    routine: Routine, ahead: Prospect, trigger: str, *, user: str = "", reason: str = ""
) -> Attempt | None:
    """Claim the next attempt: a row in state running, and with it the right to commit.

    Args:
        routine: what is attempted.
        ahead: what the holder of the guard knows.
        trigger: what called, one of :class:`once.models.Trigger`.
        user: who decided, where a person did.
        reason: why.

    Returns:
        The attempt, or ``None`` where somebody else claimed that number: the guard was lost.

    """
    attempt = Attempt(
        routine=routine.name,
        number=ahead.number,
        version=routine.version,
        scope_key=routine.scope_key,
        key=ahead.key,
        retry=routine.retry or trigger in DECISIONS,
        trigger=trigger,
        user=user,
        reason=reason,
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


def close(attempt: Attempt, state: State, error: str = "", *, is_harmless: bool = False) -> State:
    """Take an attempt's right to commit, unless it ended before: fence, then read.

    Where a transaction may still commit it, its session is ended first. So what this returns is
    final, also of an attempt whose COMMIT got no answer.

    Args:
        attempt: this process's own, or a predecessor.
        state: how it ended, if it did not before.
        error: why.
        is_harmless: no body was left half-way, so that another attempt may follow in any case.

    Returns:
        The state in which the attempt is now for good.

    Raises:
        CannotFence: a session that may still commit could not be ended.

    """
    here = database(str(attempt._state.db))
    row = Attempt.objects.using(here.using).filter(pk=attempt.pk)
    end = {"state": state, "finished_at": Now(), "error": error}
    if is_harmless:
        end["retry"] = True
    for _ in range(_FENCE_TRIES):
        try:
            with here.statements():
                row.filter(state=State.RUNNING).update(**end)
                # Whoever deleted the row took the right to commit as well.
                return State(row.values_list("state", flat=True).first() or State.LOST)
        except DatabaseError as problem:
            if not here.is_locked(problem):
                raise
        if not here.end_work(work_name(attempt)):
            time.sleep(0.05)  # a statement's lock is short
    raise CannotFence(
        f"The row of {attempt} is locked by a session that does no work of it. End that session."
    )


def lock(attempt: Attempt) -> None:
    """Keep an attempt's right to commit for the work transaction in hand, until that ends.

    Raises:
        AttemptLost: the attempt has no such right any more.

    """
    here = database(str(attempt._state.db))
    with here.connection.cursor() as cursor:
        cursor.execute(
            f"SELECT number FROM once_attempt WHERE id = %s AND state = %s {here.row_lock}",
            [attempt.pk, State.RUNNING],
        )
        if cursor.fetchone() is None:
            raise _lost(attempt)


def progress(routine: Routine, attempt: Attempt) -> Progress:
    """How far the attempts before this one came, once all of them are fenced."""
    before = _of_completion(routine).filter(number__lt=attempt.number).exclude(cursor="")
    with database(routine.using).statements():
        last = before.order_by("-number").first()
    if last is None:
        return Progress()
    return Progress(cursor=last.cursor, processed=last.processed, total=last.total)


def resume(attempt: Attempt, done: Progress) -> None:
    """Note where an attempt goes on.

    Raises:
        AttemptLost: the attempt has no right to commit any more.

    """
    with database(str(attempt._state.db)).statements():
        _update(
            attempt,
            cursor=done.cursor,
            processed=done.processed,
            resumed=done.processed,
            total=done.total,
        )
    attempt.processed = attempt.resumed = done.processed
    attempt.total = done.total


def advance(attempt: Attempt, cursor: str, items: int) -> None:
    """Record, in the work transaction in hand, that a batch is done.

    Raises:
        AttemptLost: the attempt has no right to commit any more.

    """
    _update(attempt, cursor=cursor, processed=F("processed") + items)


def complete(attempt: Attempt) -> None:
    """Record, in the work transaction in hand, that its effects are all there is to do.

    Raises:
        AttemptLost: the attempt has no right to commit any more.

    """
    with database(str(attempt._state.db)).connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO once_completion (routine, version, scope_key) VALUES (%s, %s, %s)",
            [attempt.routine, attempt.version, attempt.scope_key],
        )
    _update(attempt, state=State.SUCCEEDED, finished_at=Now())


def undo(attempt: Attempt, *, start: str) -> None:
    """Make pending again, in the work transaction in hand, what an attempt of a reset is for.

    What was completed begins anew, under a new idempotency key and from the start. What was not
    goes on where it stands, and is no longer held.

    Args:
        attempt: of the reset.
        start: the cursor of a routine that begins at the start.

    Raises:
        AttemptLost: the attempt has no right to commit any more.

    """
    same = {
        "routine": attempt.routine,
        "version": attempt.version,
        "scope_key": attempt.scope_key,
    }
    using = attempt._state.db
    Attempt.objects.using(using).filter(**same, retry=False).update(retry=True)
    anew: dict[str, str] = {}
    if Completion.objects.using(using).filter(**same).delete()[0]:
        anew = {"key": _new_key(), "cursor": start}
    _update(attempt, state=State.SUCCEEDED, finished_at=Now(), **anew)


def rehearse(using: str, name: str) -> tuple[datetime | None, dict[str, DatabaseError]]:
    """Do to each table all that is ever done to it, in a transaction that is to be rolled back.

    No signal of a model is sent.

    Returns:
        The database's time, where it could be had, and by statement the error that it met.

    """
    rows: list[models.Model] = [
        Attempt(routine=name, number=1, version=1, trigger=Trigger.TEST, pid=0),
        Completion(routine=name, version=1),
    ]
    times: list[datetime] = []
    errors: dict[str, DatabaseError] = {}
    for row in rows:
        meant = type(row)._default_manager.using(using).filter(routine=name)
        statements: dict[str, Callable[[], object]] = {
            "INSERT": partial(meant.bulk_create, [row]),
            "SELECT": partial(times.extend, meant.values_list(Now(), flat=True)),
            "UPDATE": partial(meant.update, version=1),
            "DELETE": partial(meant._raw_delete, using),
        }
        for verb, statement in statements.items():
            try:
                with transaction.atomic(using=using):
                    statement()
            except DatabaseError as error:
                errors[f"{verb} on {row._meta.db_table}"] = error
    return next(iter(times), None), errors


def record_migrated(using: str, name: str, digest: str) -> None:
    """Record that a database was brought to the migrations of this digest."""
    with suppress(IntegrityError), database(using).statements():
        Completion(routine=name, version=1, scope_key=digest).save(using=using, force_insert=True)


def work_name(attempt: Attempt) -> str:
    """What the work lock of an attempt is called."""
    return f"{attempt.pk}"


def _of_completion(routine: Routine) -> "QuerySet[Attempt]":
    """The attempts at what one row would complete: they share key and cursor."""
    return Attempt.objects.using(routine.using).filter(
        routine=routine.name, version=routine.version, scope_key=routine.scope_key
    )


def _update(attempt: Attempt, **values: object) -> None:
    row = Attempt.objects.using(attempt._state.db).filter(pk=attempt.pk, state=State.RUNNING)
    if not row.update(**values):
        raise _lost(attempt)


def _new_key() -> str:
    return uuid.uuid4().hex


def _lost(attempt: Attempt) -> AttemptLost:
    return AttemptLost(
        f"{attempt} lost its right to commit: another process took over. Nothing of this "
        "attempt was committed; see `manage.py once status` for who runs it now."
    )
