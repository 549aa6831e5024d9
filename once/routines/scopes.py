"""The scopes that a routine may have, and their keys in the record."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from django.core.exceptions import ImproperlyConfigured

from once import conf
from once.exceptions import RoutineError, ValueUnknown
from once.routines import content, state
from once.routines.content import Content
from once.routines.state import State

Scope = Literal["database", "release", "process"] | Content | State


def key(scope: Scope, name: str, function: Callable[..., Any]) -> str:
    """Return the name of a routine's scope in the record.

    Args:
        scope: the scope.
        name: name of the routine, for an error.
        function: its body, whose module has the directory of relative patterns.

    Raises:
        ImproperlyConfigured: ``ONCE_RELEASE`` is needed and unset, a file is missing, or a value
            cannot be had.

    """
    check(scope, name, function)
    if isinstance(scope, Content):
        try:
            return content.digest(scope, _directory(scope, function))
        except OSError as error:
            raise _unreadable(f"Routine {name!r} has scope={scope}", error) from error
    if isinstance(scope, State):
        if isinstance(scope.value, Content):
            return f"{state.PREFIX}{key(scope.value, name, function)}"
        return f"{state.PREFIX}{state.digest(scope.value)}"
    return conf.release() if scope == "release" else ""


def check(scope: Scope, name: str, function: Callable[..., Any]) -> None:
    """See that what a routine's scope needs is there; raise as :func:`key` does."""
    declared = f"Routine {name!r} has scope={scope}"
    files = scope.value if isinstance(scope, State) else scope
    if isinstance(files, Content):
        try:
            content.matches(files, _directory(files, function))
        except OSError as error:
            raise _unreadable(declared, error) from error
    elif isinstance(scope, State):
        _check_value(scope, declared)
    elif scope == "release" and not conf.release():
        raise ImproperlyConfigured(
            f'Routine {name!r} has scope="release", but ONCE_RELEASE is unset. '
            "Set it to what is deployed, such as a tag or a commit."
        )


def _unreadable(declared: str, error: OSError) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{declared}, but {error}. Correct the pattern, or ship the file.")


def _check_value(scope: State, declared: str) -> None:
    try:
        state.digest(scope.value)
    except state.Unusable as error:
        raise RoutineError(
            f"{declared}, whose function returned {error}. Have it return text, bytes or JSON, "
            "such as sorted() of a set."
        ) from error
    except (Exception, SystemExit) as error:
        from once.text import one_line  # because most processes meet no such error

        raise ValueUnknown(
            f"{declared}, whose function raised an error: {one_line(error)}. No routine runs until "
            "it returns a value."
        ) from error


def _directory(files: Content, function: Callable[..., Any]) -> Path:
    return files.directory or Path(inspect.unwrap(function).__code__.co_filename).parent
