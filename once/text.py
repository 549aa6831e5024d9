"""Format errors and foreign text for log lines, terminals and the text columns of databases."""

import re
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from django.db import DatabaseError

from once import conf
from once.exceptions import OnceError

T = TypeVar("T")

_LENGTH = 10_000
_LINE = 300

#: Characters that a terminal obeys or shows out of order, and half characters.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: Packages between these functions and a body: the last two carry a coroutine.
_CARRIERS = ("once", "asgiref", "concurrent")
#: The functions of this package that call what the project wrote, or go on with it.
_CALLS = ("Routine.call", "Routine.items", "Routine.is_found", "_ItemBatches.after")


def one_line(error: BaseException | None, place: str = "") -> str:
    """Return the type and the first line of an error, of 300 characters at most, and its place.

    Below the first line databases print detail and context, which alone say nothing. A group
    names its first error as well. This package's own errors are whole, and without their type:
    they end with the next step.
    """
    if place and not isinstance(error, OnceError):
        return f"{one_line(error).rstrip('.')}, at {inline(place)}"
    try:
        text = _scrubbed(str(error))
    except Exception:  # a message that cannot be made must not hide the error
        text = "its message cannot be shown"
    if isinstance(error, OnceError):
        return escaped(" ".join(text.split()))
    first = " ".join(next(iter(text.strip().splitlines()), "").split())
    line = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if isinstance(error, BaseExceptionGroup):
        line = f"{_shortened(line)}: {one_line(error.exceptions[0])}"
    return _shortened(line)


def _shortened(text: str) -> str:
    text = escaped(text)
    return text if len(text) <= _LINE else f"{text[: _LINE - 6]} [...]"


def whole(error: BaseException, place: str = "") -> str:
    """Return an error as an attempt keeps it, of 10,000 characters at most.

    Its first line is :func:`one_line` of it; below is the end of its traceback.
    """
    line = one_line(error, place)[: _LENGTH // 2]
    return f"{line}\n{trace(error)[len(line) + 1 - _LENGTH :]}"


def trace(error: BaseException) -> str:
    """Return the traceback of an error; that of the project's code begins there."""
    lines = traceback.format_exception(type(error), error, _from_body(error))
    return escaped(_scrubbed("".join(lines)))


def of_body(error: Exception) -> Exception:
    """Return an error with a traceback that begins at the body, to be the cause of another."""
    return error.with_traceback(_from_body(error))


def _from_body(error: BaseException) -> TracebackType | None:
    """Return the traceback of an error, which begins at the project's code if that raised it."""
    frame, is_inside = error.__traceback__, False
    while frame is not None:
        code = frame.tb_frame.f_code
        package = frame.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        if is_inside and package not in _CARRIERS:
            return frame
        is_inside |= code.co_qualname in _CALLS and package == "once"
        frame = frame.tb_next
    return error.__traceback__


def _scrubbed(text: str) -> str:
    """Return a text without what ``ONCE_SCRUB`` removes, or none of it where that fails."""
    try:
        scrub = conf.scrub()
        return text if scrub is None else str(scrub(text))
    except Exception as error:
        return f"[not shown, because ONCE_SCRUB failed: {type(error).__name__}]\n"


def escaped(text: str) -> str:
    """Return a text that no terminal obeys and every database takes; new lines and tabs stay.

    What is unfit is written as Python writes it: half characters come from file names, and
    PostgreSQL refuses NUL in text (manual, 8.3).
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def inline(text: str) -> str:
    """Return a text as a part of a line, escaped."""
    return escaped(text).replace("\n", "\\n")


def written(
    write: Callable[[dict[str, str]], T],
    texts: dict[str, str],
    is_unwritable: Callable[[Exception], bool],
) -> T:
    """Return what a function returns that writes texts to a database.

    Call it again with the texts in ASCII after an error that says that they cannot be written.
    """
    try:
        return write(texts)
    except (DatabaseError, UnicodeEncodeError) as error:
        if not is_unwritable(error) or all(text.isascii() for text in texts.values()):
            raise
    ascii_texts = {
        name: text.encode("ascii", "backslashreplace").decode() for name, text in texts.items()
    }
    return write(ascii_texts)
