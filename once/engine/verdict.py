"""The end of an attempt: decide whose fault it was, and say what is left and what to do next.

The place of an error decides, not its code. What does not come from the project's own code (a lock,
the fence, the record, a grant or a table that is missing, a disk that is full) cannot be done now:
it is waited for, and no routine has failed. What comes from it is the routine's failure, but for
the loss of the connection beneath it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from django.db import Error

from once.databases import Database, discard
from once.exceptions import (
    AttemptLost,
    BodyError,
    CannotFence,
    LockLost,
    NoConnection,
    Paused,
    TimedOut,
)
from once.models import BODILESS, State, Trigger
from once.record import failed_items, history, recorder, wishes
from once.record.advice import describe, earlier, hint
from once.record.standing import Record, Standing, holds
from once.results import Outcome, Reason, Result, already_done, skipped
from once.routines.base import Routine
from once.text import one_line, whole

if TYPE_CHECKING:  # because a status tells of attempts, and makes none
    from once.engine.attempt import Work


#: The part of a failed attempt that stays, by kind of routine.
_KEPT = {
    "atomic": "Nothing of its transaction was committed.",
    "batched": "Its committed batches stay; the next attempt goes on after them.",
    "external": "What it did outside stays; the next attempt has the same key.",
    Trigger.ITEMS: "Items that did not fail are done.",
}


def conclude(work: "Work", problem: BaseException) -> State:
    """Settle how an attempt ended that did not end well: fence, then read.

    Return the state that is recorded, or ``RUNNING`` where nothing could be recorded.
    """
    stopped = isinstance(problem, LockLost | CannotFence | Paused | TimedOut | KeyboardInterrupt)
    # Its commits may be gone; or its body starved the heartbeat, and the lock was lost.
    is_cut_off = isinstance(problem, AttemptLost) or (
        work.is_begun and isinstance(problem, LockLost) and not isinstance(problem, NoConnection)
    )
    work.is_hindered = _is_databases(work, problem)
    # Because an interrupted COMMIT leaves a session that lies, the answer is a fresh one's.
    discard(work.here)

    def close() -> State:
        try:
            with work.here.answering():
                # A successor claims before it ends a session, so that its own claim tells of it.
                work.has_successor = history.has_successor(work.attempt)
                state = State.INTERRUPTED if stopped or work.is_hindered else State.FAILED
                if work.has_successor or is_cut_off:
                    state = State.LOST
                error = whole(problem, work.place)
                return recorder.close(
                    work.attempt, state, error, body_not_started=not work.is_begun
                )
        except Error:
            # If the database takes no record just then, the body's own error tells nothing.
            work.is_hindered = work.is_hindered or isinstance(problem, Error)
            raise

    try:
        return work.wait.insist(close)
    except (Error, CannotFence) as error:
        # Still "running": the next holder of the lock settles it.
        problem.add_note(f"How it ended could not be recorded: {one_line(error)}")
        return State.RUNNING


def ended(work: "Work", problem: BaseException | None, seconds: float) -> Result:
    """Return the result of an attempt of this process."""
    attempt = work.attempt
    if work.is_found and attempt.state == State.SUCCEEDED:  # also by a COMMIT without an answer
        attempt.trigger = Trigger.FOUND
    done = Outcome.RECORDED if attempt.trigger in BODILESS else Outcome.RAN
    result = partial(Result, routine=work.routine, attempt=attempt, seconds=seconds)
    # Taken over when it was recorded already: a COMMIT without an answer, settled since.
    is_settled = isinstance(problem, AttemptLost) and attempt.state == State.SUCCEEDED
    left = failed_items.explain(work.routine.name, work.failed_items) if work.failed_items else ""
    if problem is None or is_settled:
        return result(outcome=done, message=left)
    what = one_line(problem, work.place).rstrip(".")
    if isinstance(problem, Paused) and attempt.state == State.INTERRUPTED:
        return result(outcome=Outcome.SKIPPED, message=str(problem), reason=Reason.PAUSED)
    if attempt.state == State.SUCCEEDED:
        left = left and f". {left}"
        return result(outcome=done, message=f"Done and recorded, but afterwards: {what}{left}")
    # No body is called again by the same call; where it was taken over, the successor decides.
    is_once = work.routine.kind == "external" or not work.may_repeat
    reason = None if attempt.state in (State.LOST, State.INTERRUPTED) else Reason.FAILED
    if work.is_hindered and attempt.state != State.LOST:
        reason = Reason.HINDERED
    return result(
        outcome=Outcome.FAILED,
        message=_aftermath(work, problem, what),
        error=problem,
        reason=reason,
        is_final=work.is_begun and is_once and not work.has_successor,
    )


def is_worth_repeating(failed: Result, here: Database) -> bool:
    """True if an attempt failed for a reason outside its body that may pass."""
    if failed.error is None or failed.attempt is None or failed.is_final:
        return False
    # Another process goes on with what was taken over: wait for it, or follow it.
    if failed.attempt.state == State.LOST or isinstance(failed.error, LockLost | AttemptLost):
        return True
    # A new attempt may repeat the body where the same attempt may not.
    leaves_it = failed.routine.kind == "batched" or not failed.routine.retry
    return leaves_it and isinstance(failed.error, Error) and here.is_conflict(failed.error)


def left(routine: Routine, found: Record) -> Result:
    """Return the result of a routine that is not due, and not simply done.

    It is paused or held, its value is an earlier one, or it has to be completed first.
    """
    if found.standing is Standing.OPEN:  # where failed items were to be tried
        first = f"It is not completed. Call `manage.py once run {routine.name}` first."
        return skipped(routine, first)
    if found.standing is Standing.PAUSED:
        return skipped(routine, wishes.explain(routine.using, routine.name), reason=Reason.PAUSED)
    if found.standing is Standing.HELD:
        return skipped(routine, hint(routine.name, is_gone=found.is_gone), reason=Reason.HELD)
    reason = Reason.OVERTAKEN if found.is_overtaken else Reason.EARLIER
    message = earlier(routine.name, is_overtaken=found.is_overtaken)
    return replace(already_done(routine), reason=reason, message=message)


def put_off(routine: Routine, found: Record) -> Result:
    """Return the result of a routine that failed lately, for a starting server."""
    if found.is_done:  # whose failed items another process has tried
        return already_done(routine)
    failure = history.last_failures(routine.using, [routine]).get(routine.name)
    what = describe(failure) if failure else "An attempt died"
    return skipped(
        routine,
        f"{what}. Starting servers try again in {found.retry_in:.0f} s; `manage.py once run` tries "
        "at once.",
        retry_in=found.retry_in,
        reason=Reason.FAILED if failure and failure.state == State.FAILED else None,
    )


def uncarried(routine: Routine, found: Record) -> Result:
    """Return the result of a routine whose old name has lost its tombstone since that was there."""
    return skipped(
        routine,
        f"Not tried, since the tombstone of its old name {found.uncarried[0]} is gone: the "
        "database lost commits, or a person removed it. Run this again.",
    )


def too_early(undone: Sequence[str]) -> str:
    """Say that a routine that must be done before is not done any more."""
    return f"Not tried, since {undone[0]} must be done before, and is not any more."


def _aftermath(work: "Work", problem: BaseException, what: str) -> str:
    attempt = work.attempt
    kept = _KEPT.get(attempt.trigger, _KEPT[work.routine.kind])
    if attempt.state == State.RUNNING:
        return f"{what}. Whether it committed is settled by the next `manage.py once run`."
    if attempt.state == State.LOST:
        if work.has_successor:
            what = (
                f"Attempt {attempt.number} lost its right to commit, because another process took "
                f"over ({what})"
            )
        elif not isinstance(problem, AttemptLost | LockLost):
            what = f"The row of attempt {attempt.number} is gone from the record ({what})"
        return f"{what}. {kept} `manage.py once status` shows how it stands."
    if holds(attempt.state, attempt.retry):
        return f"{what}. {kept} {hint(work.routine.name)}"
    if isinstance(problem, BodyError):
        return what
    if attempt.state == State.INTERRUPTED:
        return f"{what}. {kept}"
    return f"{what}. {kept} Fix the cause and run this again."


def _is_databases(work: "Work", problem: BaseException) -> bool:
    """True if an error is the database's, and not that of the project's code."""
    if not isinstance(problem, Error):
        return False
    # Nothing that carries a record over is the project's.
    if problem is not work.of_project or work.attempt.trigger == Trigger.RENAME:
        return True
    # A body may also ask another database, whose loss is the body's own affair. An external body
    # has no session of the run's, by which to tell.
    is_gone = work.routine.kind == "external" or work.here.connection.connection is not work.session
    return is_gone and work.here.is_lost(problem)
