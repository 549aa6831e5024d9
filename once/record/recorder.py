"""Write completions and attempts; :mod:`once.record.anchors` writes anchors, and prunes.

``lock_attempt``, ``resume``, ``advance``, ``complete``, ``succeed`` and ``undo`` are parts of the
work transaction in hand. They raise ``AttemptLost`` where the attempt has no right to commit any
more. The other functions that write are statements of their own, durable on return.
"""

import os
import socket
import time
import uuid
from dataclasses import asdict
from typing import Any

from django.db import DatabaseError, IntegrityError, ProgrammingError
from django.db.models import QuerySet

from once import conf
from once.databases import database, tables
from once.databases.messages import Statement, together
from once.exceptions import AttemptLost, BodyError, CannotFence
from once.models import DECISIONS, Attempt, Completion, State
from once.record import failed_items, history, statements, states
from once.record.history import NextAttempt
from once.routines.base import Routine
from once.routines.batches import Progress
from once.text import written

#: Each ends the session in the way, waits for its end and tries again: seconds in all.
_FENCE_TRIES = 4
_UNDEFINED_TABLE = "42P01"


def rehearse(using: str) -> None:
    """Raise the error, if any, that the database has for a process that inserts a completion.

    Before a body is called again, because it would be called in vain. No row is inserted, so that
    none is waited for, and nothing has to be undone.
    """
    here = database(using)
    table, columns = tables.quoted(here.connection, "completion"), "routine, version, scope_key"
    with here.statements():
        tables.execute(
            here.connection,
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE 1 = 0",
        )


def begin(
    routine: Routine,
    upcoming: NextAttempt,
    trigger: str,
    user: str = "",
    reason: str = "",
    *,
    acts: bool = False,
) -> Attempt | None:
    """Claim the next attempt: a row in state running, and with it the right to commit.

    If it acts at once, because there is no predecessor to fence, the claim moves the anchor to it.

    Return ``None`` if another process claimed that number, or recorded anything of a routine of
    which nothing was recorded.
    """
    attempt = Attempt(
        routine=routine.name,
        number=upcoming.number,
        version=routine.version,
        scope_key=routine.scope_key,
        key=upcoming.key,
        retry=routine.retry or trigger in DECISIONS,
        trigger=trigger,
        pid=os.getpid(),
    )
    host, release = socket.gethostname(), conf.release()
    texts = {"user": user, "reason": reason, "host": host, "release": release}

    here = database(routine.using)
    attempt._state.db = here.using

    def insert(texts: dict[str, str]) -> int | None:
        for name, text in texts.items():
            field: Any = Attempt._meta.get_field(name)
            setattr(attempt, name, text[: field.max_length])
        claim = statements.claim(attempt, is_first=upcoming.is_first)
        anchor = [statements.move_anchor(attempt)] if acts else []
        with here.statements():
            _, found, *moved = together(here, *claim, *anchor)
        attempt.is_anchored = any(moved)
        return found[0][0] if found else None

    try:
        attempt.pk = written(insert, texts, here.is_unwritable_text)
    except IntegrityError:
        rows = Attempt.objects.using(routine.using)
        if not rows.filter(routine=routine.name, number=upcoming.number).exists():
            raise  # because it is a damaged table
        return None
    attempt._state.adding = False
    return attempt if attempt.pk else None


def close(
    attempt: Attempt, state: State, error: str = "", *, body_not_started: bool = False
) -> State:
    """Fence an attempt and end it, unless it ended before; return the state that it has then.

    If a transaction that may still commit locks the row, its session is ended, and the update
    repeated: fence, then read. Therefore that state is final, also after a COMMIT without answer.

    If the body was not started, another attempt may follow in any case.
    """
    here = database(str(attempt._state.db))
    row = Attempt.objects.using(here.using).filter(pk=attempt.pk)
    may_follow = {"retry": True} if body_not_started else {}

    def end(texts: dict[str, str]) -> State:
        with here.statements():
            _end(attempt, state, **may_follow, **texts)
            # Because a deleted row gives no right to commit, its attempt is lost.
            return State(row.values_list("state", flat=True).first() or State.LOST)

    attempt.retry |= body_not_started
    for _ in range(_FENCE_TRIES):
        try:
            return written(end, {"error": error}, here.is_unwritable_text)
        except DatabaseError as problem:
            if not here.is_locked(problem):
                raise
        if not here.terminate_backend(work_name(attempt)):
            time.sleep(0.05)  # a statement's lock is short
    raise CannotFence(
        f"The row of {attempt} is locked by a session that does no work of it. End that session."
    )


def lock_attempt(attempt: Attempt) -> int:
    """Keep an attempt's right to commit for the work transaction in hand, until that ends.

    Return the number of the last wish for its routine, which so costs no question of its own.
    """
    [found] = _sent(attempt, statements.lock(attempt))
    if not found:
        raise lost_error(attempt)
    return found[0][0] or 0


def resume(attempt: Attempt, done: Progress) -> None:
    """Record where an attempt goes on, in the transaction that read the progress.

    Only where it has no cursor yet: a failover that lost an attempt may give its id to the next
    one, whose cursor must not be put back.
    """
    values = _resumed(done)
    if not _running(attempt).filter(cursor="").update(**values):
        raise _moved(attempt)
    for name, value in values.items():
        setattr(attempt, name, value)


def advance(attempt: Attempt, before: str, after: str, items: int) -> None:
    """Record that a batch of some items is done.

    Because a failover or a crash may lose acknowledged commits, the cursor moves only from where
    this attempt left it.
    """
    [moved] = _sent(attempt, statements.move_cursor(attempt, before, after, items))
    if not moved:
        raise _moved(attempt)


def complete(attempt: Attempt, **values: object) -> None:
    """Record that the effects of the work transaction are all there is to do."""
    try:
        states.leave(attempt)
        _, ended = _sent(
            attempt,
            statements.complete(attempt),
            statements.end(attempt, State.SUCCEEDED, **values),
        )
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", None) == _UNDEFINED_TABLE:
            raise _unseen() from error  # it was there when the transaction began
        raise
    if not ended:
        raise _moved(attempt)


def undo(attempt: Attempt, *, start: str, anew: bool = False) -> None:
    """Make pending again what an attempt of a reset is for.

    A completed routine begins anew, under a new idempotency key and from the start, and so does an
    earlier value. Any other routine goes on where it stands, and is no longer held.
    """
    completion, using = _completion_of(attempt), attempt._state.db
    Attempt.objects.using(using).filter(**completion, retry=False).update(retry=True)
    if Completion.objects.using(using).filter(**completion).delete()[0] or anew:
        values: dict[str, object] = {"key": uuid.uuid4().hex, "cursor": start}
        failed_items.forget(attempt)
    else:
        values = _resumed(history.progress(attempt))
    succeed(attempt, **values)


def throttled(attempt: Attempt, reason: str) -> None:
    """Record which throttle an attempt waits for; where it has no right to commit, nothing."""
    with database(str(attempt._state.db)).statements():
        _running(attempt).update(throttled=reason)
    attempt.throttled = reason


def work_name(attempt: Attempt) -> str:
    """Return the name of an attempt's work lock."""
    return f"{attempt.pk}"


def lost_error(attempt: Attempt) -> AttemptLost:
    """Return the error of an attempt that has no right to commit."""
    state = _state(attempt)
    if state is None:
        return AttemptLost(
            f"The row of {attempt} is gone, and its right to commit: the row was deleted, or the "
            "database lost commits by a failover or a crash"
        )
    # It still runs where a successor has claimed, and not fenced it yet.
    is_taken = state in (State.LOST, State.RUNNING)
    why = "another process took over" if is_taken else f"it ended as {state}"
    return AttemptLost(f"{attempt} lost its right to commit: {why}")


def _completion_of(attempt: Attempt) -> dict[str, object]:
    """Return what attempts at the same completion have in common: they share key and cursor."""
    return {name: getattr(attempt, name) for name in ("routine", "version", "scope_key")}


def _resumed(done: Progress) -> dict[str, object]:
    """Return the values of an attempt that goes on after earlier attempts."""
    return {**asdict(done), "resumed": done.processed}


def succeed(attempt: Attempt, **values: object) -> None:
    """End an attempt well, and leave the completion as it is."""
    if not _end(attempt, State.SUCCEEDED, **values):
        raise _moved(attempt)


def _end(attempt: Attempt, state: State, **values: object) -> int:
    """End an attempt that runs, and return the number of changed rows."""
    [ended] = _sent(attempt, statements.end(attempt, state, **values))
    return int(ended)


def _sent(attempt: Attempt, *sent: Statement) -> list[Any]:
    return together(database(str(attempt._state.db)), *sent)


def _running(attempt: Attempt) -> "QuerySet[Attempt]":
    """Return the row of an attempt, as long as it has the right to commit."""
    return Attempt.objects.using(attempt._state.db).filter(pk=attempt.pk, state=State.RUNNING)


def _moved(attempt: Attempt) -> AttemptLost | BodyError:
    """Return why a row cannot be updated, which the transaction in hand has locked."""
    state = _state(attempt)
    if state is None:
        return _unseen()
    if state == State.RUNNING:
        return AttemptLost(
            f"Batches of {attempt} are gone that were committed: the database lost commits, by a "
            "failover or a crash. The next attempt goes on after the last batch that it has"
        )
    return lost_error(attempt)


def _unseen() -> BodyError:
    """Return what to raise where the record that a transaction began with is out of its sight."""
    return BodyError(
        "The body changed which tables its session sees, as SET search_path or a tenant's schema "
        "does, or deleted the row of its attempt. Have it restore what it sets."
    )


def _state(attempt: Attempt) -> str | None:
    row = Attempt.objects.using(attempt._state.db).filter(pk=attempt.pk)
    return row.values_list("state", flat=True).first()
