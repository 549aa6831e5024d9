"""Queries that code makes while Django still loads its apps: their places, for a system check.

It watches from the import of this package's app to the moment at which every app is ready. What is
imported before that, by apps that stand before it in INSTALLED_APPS, is not seen.
"""

import os
from collections.abc import Iterable
from itertools import takewhile
from types import FrameType
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.db.backends.signals import connection_created

from once.startup import launch


class Early(NamedTuple):
    """A connection that was opened too early."""

    using: str
    module: str
    #: File, line and function.
    place: str


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
    loading = takewhile(lambda call: call[1] != launch.LOADS_APPS, launch.frames())
    meant = [
        (frame, module)
        for frame, (module, _) in loading
        if _is_meant(frame, module) and not _is_below(module, drivers)
    ]
    if meant:
        # The project's own line before that of an installed app: that one can be mended.
        frame, module = min(meant, key=lambda call: _is_installed(call[0]))
        code = frame.f_code
        place = f"{code.co_filename}, line {frame.f_lineno}, in {code.co_name}"
        found.append(Early(connection.alias, module, place))


def _is_meant(frame: FrameType, module: str) -> bool:
    """True for code of the project, and of an installed app, wherever it lies."""
    if frame.f_code.co_filename.startswith("<") or _is_below(module, ("django", "once")):
        return False
    packages = {entry.partition(".")[0] for entry in settings.INSTALLED_APPS}
    return not _is_installed(frame) or _is_below(module, packages)


def _is_installed(frame: FrameType) -> bool:
    """True for code of Python, and of an installed package."""
    file = frame.f_code.co_filename
    return file.startswith(_PYTHON) or not _PACKAGES.isdisjoint(file.split(os.sep))


def _is_below(module: str, packages: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)
