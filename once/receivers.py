"""Log what the engine's signals tell."""

import logging
from typing import TYPE_CHECKING, Any

from once import signals
from once.log import forget, news, tell
from once.models import Attempt, State
from once.routines.base import Routine

if TYPE_CHECKING:  # because most processes have no result to log
    from once.results import Result

#: Seconds between two lines about the progress of one attempt.
_PROGRESS = 30

#: Seconds of a wait from which on it is told: a shorter one looks like no hanging server.
_NOTICEABLE = 1.0


def connect() -> None:
    """Begin to log what the engine does."""
    signals.attempt_started.connect(_started, dispatch_uid="once.receivers")
    signals.attempt_finished.connect(_finished, dispatch_uid="once.receivers")
    signals.attempt_lost.connect(_lost, dispatch_uid="once.receivers")
    signals.progressed.connect(_progressed, dispatch_uid="once.receivers")
    signals.skipped.connect(_skipped, dispatch_uid="once.receivers")
    signals.suspected.connect(_suspected, dispatch_uid="once.receivers")
    signals.throttled.connect(_throttled, dispatch_uid="once.receivers")
    signals.waiting.connect(_waiting, dispatch_uid="once.receivers")
    signals.waited.connect(_waited, dispatch_uid="once.receivers")


def _of(routine: Routine) -> dict[str, object]:
    return {"routine": routine.name, "version": routine.version, "database": routine.using}


def _started(sender: Routine, attempt: Attempt, **kwargs: Any) -> None:
    forget(sender.name)
    tell(
        logging.INFO,
        "started",
        **_of(sender),
        attempt=attempt.number,
        trigger=str(attempt.trigger),
        user=attempt.user,
        reason=attempt.reason,
    )


def _progressed(
    sender: Routine, attempt: Attempt, seconds: float, lap: float, **kwargs: Any
) -> None:
    if seconds // _PROGRESS > (seconds - lap) // _PROGRESS:
        tell(
            logging.INFO,
            "progress",
            **_of(sender),
            attempt=attempt.number,
            processed=attempt.processed,
            total=attempt.total,
            seconds=float(seconds),
        )


def _finished(sender: Routine, result: "Result", **kwargs: Any) -> None:
    from once.results import Outcome

    attempt = result.attempt
    is_stopped = attempt is not None and attempt.state == State.INTERRUPTED
    is_fault = result.outcome is Outcome.FAILED and not is_stopped
    level = logging.WARNING if result.message else logging.INFO
    is_recorded = result.outcome is Outcome.RECORDED  # by no body whose time would tell anything
    tell(
        logging.ERROR if is_fault else level,
        "finished",
        result.error if is_fault else None,
        **_of(sender),
        attempt=attempt and attempt.number,
        trigger=attempt and str(attempt.trigger),
        state=attempt and str(attempt.state),
        processed=attempt.processed if attempt and sender.kind == "batched" else None,
        seconds=None if is_recorded else float(result.seconds),
        message=result.message,
    )


def _lost(sender: Routine, attempt: Attempt, successor: Attempt, **kwargs: Any) -> None:
    tell(
        logging.WARNING,
        "took_over",
        **_of(sender),
        attempt=successor.number,
        lost=attempt.number,
        host=attempt.host,
        pid=attempt.pid,
    )


def _skipped(sender: Routine, result: "Result", **kwargs: Any) -> None:
    from once.results import Reason

    # No more than information, because the caller of the run says what follows from it.
    level = news(logging.INFO, sender.name, result.message) if result.is_for_a_person else 0
    if result.reason is Reason.HELD:
        tell(level, "held", **_of(sender), message=result.message)
    elif result.reason is Reason.PAUSED:
        tell(level, "paused", **_of(sender), message=result.message)
    elif result.retry_in:
        retry_in = float(result.retry_in)
        tell(logging.DEBUG, "put_off", **_of(sender), retry_in=retry_in, message=result.message)
    else:
        tell(logging.DEBUG, "skipped", **_of(sender), message=result.message)


def _suspected(sender: Routine, message: str, **kwargs: Any) -> None:
    tell(logging.WARNING, "suspected", **_of(sender), message=message)


def _throttled(
    sender: Routine, attempt: Attempt, reason: str, waited: float, **kwargs: Any
) -> None:
    # Each reason is a part of the routine, because one throttle may take turns with another, and
    # a throttle may be in the way of every batch.
    is_noticed = waited >= _NOTICEABLE
    level = news(logging.INFO, f"{sender.name}: {reason}", "") if is_noticed else logging.DEBUG
    tell(
        level,
        "throttled",
        **_of(sender),
        attempt=attempt.number,
        seconds=float(waited),
        reason=reason,
    )


def _waiting(sender: object, name: str, reason: str, waited: float, **kwargs: Any) -> None:
    # A warning, because a server that is silent while it waits looks like a server that hangs.
    # Each reason is a part, because processes that wait for a database find each other's locks.
    is_noticed = waited >= _NOTICEABLE
    level = news(logging.WARNING, f"wait {name}: {reason}", "") if is_noticed else logging.DEBUG
    tell(level, "waiting", **{"for": name}, seconds=float(waited), reason=reason)


def _waited(sender: object, name: str, waited: float, message: str, **kwargs: Any) -> None:
    # At the level of its beginning, because where that was shown its end is missed.
    level = forget(f"wait {name}") or (logging.INFO if message else logging.DEBUG)
    tell(level, "waited", **{"for": name}, seconds=float(waited), message=message)
