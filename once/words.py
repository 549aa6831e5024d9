"""Words that pages of the admin share with the terminal: English, but on those pages translated.

Because people search for what a log, a record or a command says, that is English in every process,
whatever its language is. Functions are named as Django's, so that ``makemessages`` finds the words.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.utils import formats, translation
from django.utils.functional import lazy

_is_translated: ContextVar[bool] = ContextVar("once_is_translated", default=False)


@contextmanager
def translated(*, on: bool = True) -> Iterator[None]:
    """Have words be in the language of the reader, or in English again."""
    token = _is_translated.set(on)
    try:
        yield
    finally:
        _is_translated.reset(token)


def is_translated() -> bool:
    """True on a page of the admin."""
    return _is_translated.get()


def gettext(english: str) -> str:
    return translation.gettext(english) if is_translated() else english


def ngettext(singular: str, plural: str, number: int) -> str:
    if is_translated():
        return translation.ngettext(singular, plural, number)
    return singular if number == 1 else plural


gettext_lazy = lazy(gettext, str)


def number(value: float, digits: int = 0) -> str:
    """Return a number as the reader writes it."""
    if not is_translated():
        return f"{value:,.{digits}f}"
    return formats.number_format(f"{value:.{digits}f}", digits, force_grouping=True)
