"""What an error says, fit for a log line and for every database's text column."""

import traceback

from once.exceptions import OnceError

__all__ = ["last_line", "one_line", "storable", "whole"]

_LENGTH = 10_000


def one_line(error: BaseException | None) -> str:
    """An error in one line, with its type where the message may not speak for itself."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # a message that cannot be made must not hide the error
        text = "its message cannot be shown"
    kind = type(error).__name__
    if not isinstance(error, OnceError):
        text = f"{kind}: {text}" if text else kind
    return storable(text)


def last_line(text: str) -> str:
    """The last line of a traceback, which names the error."""
    return next(reversed(text.strip().splitlines()), "")


def whole(error: BaseException) -> str:
    """An error with its traceback, the last 10,000 characters of it."""
    return storable("".join(traceback.format_exception(error)))[-_LENGTH:]


def storable(text: str) -> str:
    """A text as every database takes it, what none would take being escaped."""
    # Lone surrogates come from file names; PostgreSQL refuses NUL in text (manual, 8.3).
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
