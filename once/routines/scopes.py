"""The scopes that a routine may have, and their keys in the record."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from django.core.exceptions import ImproperlyConfigured

from once import conf
from once.routines.content import Content, digest, matches

__all__ = ["Scope", "check", "key"]

Scope = Literal["database", "release", "process"] | Content


def key(scope: Scope, name: str, function: Callable[..., Any]) -> str:
    """Return the name of a routine's scope in the record.

    Args:
        scope: the scope.
        name: name of the routine, for an error.
        function: its body, whose module has the directory of relative patterns.

    Raises:
        ImproperlyConfigured: ``ONCE_RELEASE`` is needed and unset, or a file is missing.

    """
    check(scope, name, function)
    if isinstance(scope, Content):
        return digest(scope, _directory(scope, function))
    return conf.release() if scope == "release" else ""


def check(scope: Scope, name: str, function: Callable[..., Any]) -> None:
    """See that what a routine's scope needs is there; raise as :func:`key` does."""
    if isinstance(scope, Content):
        try:
            matches(scope, _directory(scope, function))
        except OSError as error:
            raise ImproperlyConfigured(
                f"Routine {name!r} has scope={scope}, but {error}. "
                "Correct the pattern, or ship the file."
            ) from error
    elif scope == "release" and not conf.release():
        raise ImproperlyConfigured(
            f'Routine {name!r} has scope="release", but ONCE_RELEASE is unset. '
            "Set it to what is deployed, such as a tag or a commit."
        )


def _directory(files: Content, function: Callable[..., Any]) -> Path:
    return files.directory or Path(inspect.unwrap(function).__code__.co_filename).parent
