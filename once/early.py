"""Queries that code makes while Django still loads its apps: who made them, for a system check.

It watches from the import of this package's app to the moment at which every app is ready. What is
imported before that, by apps that stand before it in INSTALLED_APPS, is not seen.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

from django.apps import apps
from django.db.backends.signals import connection_created

__all__ = ["Early", "found", "stop", "watch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """A connection that was opened too early."""

    using: str
    module: str
    file: str
    line: int
    function: str


#: What was seen, in order.
found: list[Early] = []


def watch() -> None:
    """Begin to watch, unless every app is ready."""
    if not apps.ready:
        connection_created.connect(_opened, dispatch_uid="once.early")


def stop() -> None:
    """Watch no more: from now on, a connection costs nothing here."""
    connection_created.disconnect(dispatch_uid="once.early")


def _opened(sender: object, connection: Any, **kwargs: Any) -> None:
    for frame in _loading():
        if _is_of_project(frame):
            found.append(
                Early(
                    using=connection.alias,
                    module=frame.f_globals.get("__name__", "?"),
                    file=frame.f_code.co_filename,
                    line=frame.f_lineno,
                    function=frame.f_code.co_name,
                )
            )
            return


def _loading() -> Iterator[FrameType]:
    """The frames from a query to what loads the apps, which a program of the project called."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == (
            "django.apps.registry",
            "populate",
        ):
            return
        yield frame
        frame = frame.f_back


def _is_of_project(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file.startswith(("<", *_installed())):
        return False
    return str(frame.f_globals.get("__name__")).partition(".")[0] not in ("django", "once")


@cache
def _installed() -> tuple[str, ...]:
    """Where Python and what is installed beside it live: no code of the project."""
    import sysconfig  # which takes as long to load as all that most processes load of this package

    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({sysconfig.get_path(name) for name in names})
