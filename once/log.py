"""One ``key=value`` log line for each event, under the logger ``once``."""

import logging
from typing import TYPE_CHECKING, Any

from once import signals
from once.base import Routine
from once.models import Attempt, State

if TYPE_CHECKING:
    from once.results import Result

__all__ = ["connect", "logger"]

#: Seconds between two lines about the progress of one attempt.
_PROGRESS = 30

logger = logging.getLogger("once")


def connect() -> None:
    """Begin to log what the runner does."""
    signals.attempt_started.connect(_started, dispatch_uid="once.log")
    signals.attempt_finished.connect(_finished, dispatch_uid="once.log")
    signals.progressed.connect(_progressed, dispatch_uid="once.log")
    signals.waiting.connect(_waiting, dispatch_uid="once.log")
    signals.waited.connect(_waited, dispatch_uid="once.log")


def _started(sender: Routine, attempt: Attempt, **kwargs: Any) -> None:
    logger.info(
        "event=started routine=%s version=%d attempt=%d trigger=%s database=%s",
        sender.name,
        sender.version,
        attempt.number,
        attempt.trigger,
        sender.using,
    )


def _progressed(
    sender: Routine, attempt: Attempt, seconds: float, lap: float, **kwargs: Any
) -> None:
    if seconds // _PROGRESS > (seconds - lap) // _PROGRESS:
        logger.info(
            "event=progress routine=%s version=%d attempt=%d processed=%d total=%s seconds=%.1f",
            sender.name,
            sender.version,
            attempt.number,
            attempt.processed,
            attempt.total,
            seconds,
        )


def _finished(sender: Routine, result: "Result", **kwargs: Any) -> None:
    from once.results import Outcome  # who sends this has loaded it; who starts need not

    attempt = result.attempt
    is_fault = result.outcome is Outcome.FAILED and (
        attempt is None or attempt.state != State.INTERRUPTED
    )
    level = logging.WARNING if result.message else logging.INFO
    if is_fault:
        level = logging.ERROR
    logger.log(
        level,
        "event=finished routine=%s version=%d attempt=%s state=%s seconds=%.3f message=%r",
        sender.name,
        sender.version,
        attempt.number if attempt else None,
        attempt.state if attempt else None,
        result.seconds,
        result.message,
        exc_info=result.error if is_fault else None,
    )


def _waiting(sender: object, name: str, reason: str, waited: float, **kwargs: Any) -> None:
    # A server that is silent while it waits looks like one that hangs.
    level = logging.WARNING if waited >= 1 else logging.INFO
    logger.log(level, "event=waiting for=%s seconds=%.1f reason=%r", name, waited, reason)


def _waited(sender: object, name: str, waited: float, **kwargs: Any) -> None:
    logger.info("event=waited for=%s seconds=%.3f", name, waited)
