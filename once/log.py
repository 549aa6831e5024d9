"""Write a ``key=value`` line for an event to the logger ``once``, once for what lasts.

``docs/reference/observability.md`` lists every event with its fields. A value that is not one plain
word is a JSON string, so that a line stays one line; a field that has nothing to say is left out.
"""

import json
import logging
import re
from time import monotonic

_PLAIN = re.compile(r"""[^\s"'=\\]+""")

logger = logging.getLogger("once")


def tell(level: int, event: str, error: BaseException | None = None, /, **fields: object) -> None:
    """Log one event, with its fields in this order, but for ``None`` and ``""``.

    The traceback of an error follows the line. For logs in JSON, the record also has the fields in
    its attribute ``once``.
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


def _value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if text.isprintable():  # other line ends than \n, and half characters, are not
        return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
    return json.dumps(text)


def _with_trace(record: logging.LogRecord) -> bool:
    """Give a record the traceback that formatters print: from the body on, scrubbed, escaped."""
    if record.exc_info and record.exc_info[1] is not None:
        from once.text import trace  # because most processes log no error

        record.exc_text = trace(record.exc_info[1]).rstrip("\n")
    return True


logger.addFilter(_with_trace)


#: Seconds after which a process tells again what has not changed.
_REMINDER = 600

#: A number of seconds in a message, which another look finds changed.
_SECONDS = re.compile(r"\b\d+(\.\d+)? s\b")

#: By thing that lasts, the state that was told last, and at which level.
_told: dict[str, tuple[str, int]] = {}
#: By level, the time of ``time.monotonic()`` at which any of it was told.
_told_at: dict[int, float] = {}


def news(level: int, about: str, what: str) -> int:
    """Return the level at which to tell how something stands, which many looks find the same.

    DEBUG unless that has changed, by more than a number of seconds, since it was told. After ten
    minutes in which nothing was told at this level, one unchanged thing is told again.
    """
    now, about = monotonic(), _SECONDS.sub("", about)
    state = _SECONDS.sub("", what), level
    if _told.get(about) == state and now - _told_at[level] < _REMINDER:
        return logging.DEBUG
    _told[about], _told_at[level] = state, now
    return level


def forget(about: str) -> int | None:
    """Have it be news again, because a thing has ended; return the level at which it was told.

    Parts of it, as ``"thing: part"``, end with it.
    """
    ended = [each for each in [*_told] if f"{each}: ".startswith(f"{about}: ")]
    return max((_told.pop(each)[1] for each in ended), default=None)


#: The level of this logger with the handler of :func:`ensure_handler`. Because no project sets it,
#: another one is the project's.
_LEVEL = logging.INFO - 1
#: The handler of :func:`ensure_handler`, while it is there.
_handler: logging.Handler | None = None


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
