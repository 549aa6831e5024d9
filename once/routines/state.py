"""Scope ``state``: again with each change of a value, and forward only."""

import hashlib
import inspect
import json
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from django.core.signals import setting_changed

from once.exceptions import RoutineError
from once.routines.content import Content

#: Beginning of the scope keys of states.
PREFIX = "state:"


class Unusable(TypeError):
    """The error of a value that has no digest. Its text is the end of a sentence."""


class State(NamedTuple):
    """A value whose digest is the scope of a routine."""

    value: Callable[[], object] | Content

    def __str__(self) -> str:
        if isinstance(self.value, Content):
            return f"state({self.value})"
        return f"state({getattr(self.value, '__qualname__', type(self.value).__name__)})"


def state(value: Callable[[], object] | Content) -> State:
    """Return the scope of a routine that runs where a value is not that of its last completion.

    A value that was in force before another is an earlier one, which ``manage.py once run
    --revert`` alone runs again. A process asks for the value once.

    Args:
        value: a function without parameters that returns text, bytes, or what JSON can hold, the
            same in every process of a release; or ``content(...)``.

    Raises:
        RoutineError: the value is no such function.

    """
    if isinstance(value, Content):
        return State(value)
    if not callable(value) or inspect.iscoroutinefunction(value):
        raise RoutineError(
            f"state() takes a plain function or content(...), not {value!r:.300}. Write "
            "state(function), where the function returns the value."
        )
    try:
        inspect.signature(value).bind()
    except TypeError as error:
        raise RoutineError(
            f"The function of state() cannot be called: {error}. It takes nothing."
        ) from None
    return State(value)


@cache
def digest(function: Callable[[], object]) -> str:
    """Return the SHA-256 over what a function returns, in 64 hexadecimal digits.

    Raises:
        Unusable: it returned neither text, nor bytes, nor what JSON can hold.
        Exception: it raised an error.

    """
    value = function()
    kind = b"bytes:" if isinstance(value, bytes) else b"json:"
    return hashlib.sha256(kind + _written(value)).hexdigest()


def _written(value: Any) -> bytes:
    """Return a value as bytes, the same in every process."""
    if isinstance(value, bytes):
        return value
    if value is None:
        raise Unusable("None. Perhaps a `return` is missing")
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unusable(
            f"a value of type {type(value).__name__} that is neither text, bytes nor JSON ({error})"
        ) from error
    return text.encode()


def _forget(**kwargs: Any) -> None:
    digest.cache_clear()


setting_changed.connect(_forget)  # because tests override what a value is made of
