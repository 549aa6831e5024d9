"""What became of an attempt, in words: what is left of it, and what to do next."""

from once.base import Routine
from once.exceptions import AttemptLost, BodyError
from once.models import Attempt, State
from once.record import Record
from once.results import Outcome, Result
from once.text import last_line, one_line
from once.work import Work

__all__ = ["describe", "ended", "held", "put_off", "way_out"]

#: What stays of an attempt that did not end well, by kind.
_KEPT = {
    "atomic": "Nothing of it was committed.",
    "batched": "Its committed batches stay; the next attempt goes on after them.",
    "external": "What it did outside stays; the next attempt has the same key.",
}

_ENDS = {
    State.FAILED: "failed",
    State.LOST: "died, or was cut off",
    State.RUNNING: "ended without a word",
}


def ended(work: Work, problem: BaseException | None, seconds: float) -> Result:
    """The result of an attempt that this process made, whatever became of it."""
    attempt = work.attempt
    # Taken over when it was recorded already: a COMMIT without an answer, settled since.
    is_settled = isinstance(problem, AttemptLost) and attempt.state == State.SUCCEEDED
    if problem is None or is_settled:
        return Result(routine=work.routine, outcome=Outcome.RAN, attempt=attempt, seconds=seconds)
    what = one_line(problem).rstrip(".")
    if attempt.state == State.SUCCEEDED:
        return Result(
            routine=work.routine,
            outcome=Outcome.RAN,
            attempt=attempt,
            seconds=seconds,
            message=f"Done and recorded, but afterwards: {what}",
        )
    is_final = work.is_begun and (work.routine.kind == "external" or not work.may_repeat)
    return Result(
        routine=work.routine,
        outcome=Outcome.FAILED,
        attempt=attempt,
        seconds=seconds,
        message=_aftermath(work, problem, what),
        error=problem,
        has_failed=attempt.state != State.LOST,  # who took over goes on with it
        is_final=is_final,
    )


def held(routine: Routine) -> Result:
    """The result for a routine that waits for a person's decision."""
    return Result(
        routine=routine, outcome=Outcome.SKIPPED, message=way_out(routine.name), is_held=True
    )


def put_off(routine: Routine, found: Record, failure: Attempt | None) -> Result:
    """The result where starting servers leave out what went ill lately."""
    what = describe(failure) if failure else "An attempt died"
    return Result(
        routine=routine,
        outcome=Outcome.SKIPPED,
        message=f"{what}. Starting servers try again in {found.retry_in:.0f} s; "
        "`manage.py once run` tries at once.",
        retry_in=found.retry_in,
        has_failed=failure is not None and failure.state == State.FAILED,
    )


def describe(attempt: Attempt) -> str:
    """What became of an attempt that did not succeed, as a sentence without its full stop."""
    what = _ENDS.get(State(attempt.state), "was interrupted")
    why = f": {last_line(attempt.error)}" if attempt.state == State.FAILED else ""
    return f"Attempt {attempt.number} on {attempt.host} (pid {attempt.pid}) {what}{why}".rstrip(".")


def way_out(name: str) -> str:
    """What to do about a routine that is held."""
    return (
        f"Held, since retry=False: find out what its last attempt did. Then `manage.py once reset "
        f"{name}` has it tried again, or `manage.py once run --fake {name}` records it as done."
    )


def _aftermath(work: Work, problem: BaseException, what: str) -> str:
    attempt = work.attempt
    kept = _KEPT[work.routine.kind]
    if attempt.state == State.RUNNING:
        return f"{what}. Whether it committed is settled by the next `manage.py once run`."
    if attempt.state == State.LOST:
        return (
            f"Attempt {attempt.number} lost its right to commit, because another process took "
            f"over ({what}). {kept} `manage.py once status` shows who runs it."
        )
    if not work.routine.retry and work.is_begun:
        return f"{what}. {kept} {way_out(work.routine.name)}"
    if isinstance(problem, BodyError):
        return what
    if attempt.state == State.INTERRUPTED:
        return f"{what}. {kept}"
    return f"{what}. {kept} Fix the cause and run this again."
