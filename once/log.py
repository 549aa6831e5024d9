"""Write a ``key=value`` log line for each event, to the logger ``once``.

``docs/reference/observability.md`` lists every event with its fields. A value that is not one plain
word is a JSON string, so that a line stays one line; a field that has nothing to say is left out.
"""

import json
import logging
import re
from time import monotonic
from typing import TYPE_CHECKING, Any

from once import signals
from once.models import Attempt, State
from once.routines.base import Routine

if TYPE_CHECKING:  # because most processes have no result to log
    from once.results import Result

__all__ = ["connect", "ensure_handler", "forget", "logger", "news", "tell"]

#: Seconds between two lines about the progress of one attempt.
_PROGRESS = 30

#: Seconds after which a process tells again what has not changed.
_REMINDER = 600

#: Seconds of a wait from which on it is told: a shorter one looks like no hanging server.
_NOTICEABLE = 1.0

#: A number of seconds in a message, which another look finds changed.
_SECONDS = re.compile(r"\b\d+(\.\d+)? s\b")

_PLAIN = re.compile(r"""[^\s"'=\\]+""")

logger = logging.getLogger("once")

#: By thing that lasts, the state that was told last, and at which level.
_told: dict[str, tuple[str, int]] = {}
#: By level, the time of ``time.monotonic()`` at which any of it was told.
_told_at: dict[int, float] = {}
#: The level of this logger with the handler of :func:`ensure_handler`. Because no project sets it,
#: another one is the project's.
_LEVEL = logging.INFO - 1
#: The handler of :func:`ensure_handler`, while it is there.
_handler: logging.Handler | None = None


def connect() -> None:
    """Begin to log what the engine does."""
    signals.attempt_started.connect(_started, dispatch_uid="once.log")
    signals.attempt_finished.connect(_finished, dispatch_uid="once.log")
    signals.attempt_lost.connect(_lost, dispatch_uid="once.log")
    signals.progressed.connect(_progressed, dispatch_uid="once.log")
    signals.skipped.connect(_skipped, dispatch_uid="once.log")
    signals.suspected.connect(_suspected, dispatch_uid="once.log")
    signals.waiting.connect(_waiting, dispatch_uid="once.log")
    signals.waited.connect(_waited, dispatch_uid="once.log")


def tell(level: int, event: str, error: BaseException | None = None, /, **fields: object) -> None:
    """Log one event.

    Args:
        level: of :mod:`logging`.
        event: its name.
        error: an error whose traceback follows the line.
        fields: its values, in this order, but for ``None`` and ``""``. For logs in JSON, the record
            also has them in its attribute ``once``.

    """
    _give_way()
    if not logger.isEnabledFor(level):
        return
    values = {key: value for key, value in fields.items() if value is not None and value != ""}
    template = " ".join([f"event={event}", *(f"{key}=%s" for key in values)])
    logger.log(
        level,
        template,
        *map(_value, values.values()),
        exc_info=error,
        extra={"once": {"event": event, **values}},
        stacklevel=2,
    )


def _with_trace(record: logging.LogRecord) -> bool:
    """Give a record the traceback that formatters print: from the body on, scrubbed, escaped."""
    if record.exc_info and record.exc_info[1] is not None:
        from once.text import trace  # because most processes log no error

        record.exc_text = trace(record.exc_info[1]).rstrip("\n")
    return True


logger.addFilter(_with_trace)


def news(level: int, about: str, what: str) -> int:
    """Return the level at which to tell how something stands, which many looks find the same.

    DEBUG unless that has changed, by more than a number of seconds, since it was told. After ten
    minutes in which nothing was told at this level, one unchanged thing is told again.

    Args:
        level: of news.
        about: the thing.
        what: how it stands.

    """
    now, state = monotonic(), (_SECONDS.sub("", what), level)
    if _told.get(about) == state and now - _told_at[level] < _REMINDER:
        return logging.DEBUG
    _told[about], _told_at[level] = state, now
    return level


def forget(about: str) -> None:
    """Have it be news again, because what was told of a thing has ended."""
    _told.pop(about, None)


def ensure_handler() -> None:
    """Print events to stderr, from INFO on, unless the project has configured this logger.

    Django configures none by default, and without one Python prints no more than warnings.
    """
    global _handler
    if logger.hasHandlers() or logger.level != logging.NOTSET:
        return
    _handler = logging.StreamHandler()
    _handler.setFormatter(
        logging.Formatter("{asctime} {process} {levelname} {name} {message}", style="{")
    )
    logger.addHandler(_handler)
    logger.setLevel(_LEVEL)


def _give_way() -> None:
    """Remove the own handler if another one has come, such as Celery's: one line for an event."""
    global _handler
    if _handler is not None and (logging.root.handlers or logger.handlers != [_handler]):
        logger.removeHandler(_handler)
        if logger.level == _LEVEL:
            logger.setLevel(logging.NOTSET)
        _handler = None


def _value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if text.isprintable():  # other line ends than \n, and half characters, are not
        return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
    return json.dumps(text)


def _of(routine: Routine) -> dict[str, object]:
    return {"routine": routine.name, "version": routine.version, "database": routine.using}


def _started(sender: Routine, attempt: Attempt, **kwargs: Any) -> None:
    _told.pop(sender.name, None)
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
    attempt = result.attempt
    is_stopped = attempt is not None and attempt.state == State.INTERRUPTED
    is_fault = result.outcome == "failed" and not is_stopped
    level = logging.WARNING if result.message else logging.INFO
    if is_fault:
        level = logging.ERROR
    tell(
        level,
        "finished",
        result.error if is_fault else None,
        **_of(sender),
        attempt=attempt and attempt.number,
        trigger=attempt and str(attempt.trigger),
        state=attempt and str(attempt.state),
        processed=attempt.processed if attempt and sender.kind == "batched" else None,
        seconds=float(result.seconds),
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
    # No more than information, because the caller of the run says what follows from it.
    if result.reason != "held" and not result.retry_in:
        tell(logging.DEBUG, "skipped", **_of(sender), message=result.message)
        return
    level = news(logging.INFO, sender.name, result.message)
    if result.reason == "held":
        tell(level, "held", **_of(sender), message=result.message)
    else:
        retry_in = float(result.retry_in)
        tell(level, "put_off", **_of(sender), retry_in=retry_in, message=result.message)


def _suspected(sender: Routine, message: str, **kwargs: Any) -> None:
    tell(logging.WARNING, "suspected", **_of(sender), message=message)


def _waiting(sender: object, name: str, reason: str, waited: float, **kwargs: Any) -> None:
    # A warning, because a server that is silent while it waits looks like a server that hangs.
    level = (
        news(logging.WARNING, f"wait {name}", reason) if waited >= _NOTICEABLE else logging.DEBUG
    )
    tell(level, "waiting", **{"for": name}, seconds=float(waited), reason=reason)


def _waited(sender: object, name: str, waited: float, message: str, **kwargs: Any) -> None:
    # At the level of its beginning, because where that was shown its end is missed.
    _, level = _told.pop(f"wait {name}", ("", logging.INFO if message else logging.DEBUG))
    tell(level, "waited", **{"for": name}, seconds=float(waited), message=message)
