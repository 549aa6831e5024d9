"""Queries that code makes while Django still loads its apps: who made them, for a system check.

It watches from the import of this package's app to the moment at which every app is ready. What is
imported before that, by apps that stand before it in INSTALLED_APPS, is not seen.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from django.apps import apps
from django.conf import settings
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


#: Directory of Python's own modules, and names of directories of installed packages.
_PYTHON = os.path.dirname(os.__file__) + os.sep
_PACKAGES = {"site-packages", "dist-packages"}

#: The queries that were seen, in order.
found: list[Early] = []


def watch() -> None:
    """Begin to watch, unless every app is ready."""
    if not apps.ready:
        connection_created.connect(_opened, dispatch_uid="once.startup.early_queries")


def stop() -> None:
    """Watch no more: from now on, a connection costs nothing here."""
    connection_created.disconnect(dispatch_uid="once.startup.early_queries")


def _opened(sender: type, connection: Any, **kwargs: Any) -> None:
    drivers = [connection.settings_dict["ENGINE"], *(kind.__module__ for kind in sender.__mro__)]
    meant = [
        frame for frame in _loading() if _is_meant(frame) and not _is_below(_module(frame), drivers)
    ]
    if meant:
        # The project's own line before that of an installed app: that one can be mended.
        frame = min(meant, key=_is_installed)
        found.append(
            Early(
                using=connection.alias,
                module=_module(frame),
                file=frame.f_code.co_filename,
                line=frame.f_lineno,
                function=frame.f_code.co_name,
            )
        )


def _loading() -> Iterator[FrameType]:
    """Return the frames from a query to the call that loads the apps."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if (_module(frame), frame.f_code.co_name) == ("django.apps.registry", "populate"):
            return
        yield frame
        frame = frame.f_back


def _is_meant(frame: FrameType) -> bool:
    """True for code of the project, and of an installed app, wherever it lies."""
    module = _module(frame)
    if frame.f_code.co_filename.startswith("<") or _is_below(module, ("django", "once")):
        return False
    packages = {entry.partition(".")[0] for entry in settings.INSTALLED_APPS}
    return not _is_installed(frame) or _is_below(module, packages)


def _is_installed(frame: FrameType) -> bool:
    """True for code of Python, and of an installed package."""
    file = frame.f_code.co_filename
    return file.startswith(_PYTHON) or not _PACKAGES.isdisjoint(file.split(os.sep))


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


def _is_below(module: str, packages: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)
