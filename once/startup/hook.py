"""Hook the start of Django: arm the run, and call in-memory routines."""

import sys
import threading
from traceback import walk_tb
from typing import Any, cast

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from once import conf
from once.exceptions import RoutineError
from once.routines import in_memory, registry
from once.routines.registry import Registry
from once.startup import early_queries, firing, forking, launch


def arm() -> None:
    """Have :func:`on_ready` called once every app is ready.

    ``Apps.populate`` sets ``apps.ready`` and then calls ``apps.ready_event.set()``: from there
    on, queries are allowed and the models of every app are there, wherever ``once`` stands in
    INSTALLED_APPS. That call is not documented; a test for each Django version pins it.
    """
    if apps.ready:
        return  # ready() called again, by hand: the event has passed
    event = getattr(apps, "ready_event", None)
    if isinstance(event, _Ready):
        return  # an app behind this one loads the apps again: this is done at the end of all
    if not isinstance(event, threading.Event):
        raise ImproperlyConfigured(
            "This version of Django starts its apps in a way that this version of django-once "
            "does not know. Upgrade django-once."
        )
    apps.ready_event = cast(threading.Event, _Ready(event))


class _Ready:
    """Stands for an event that is set once. Under gevent its own methods are read-only."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def set(self) -> None:
        self._event.set()
        if [where for _, where in launch.frames()].count(launch.LOADS_APPS) > 1:
            return  # apps were loaded from a ready(), and there are more to call
        apps.ready_event = self._event
        early_queries.stop()
        on_ready()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)


def on_ready() -> None:
    """Run the in-memory routines, and have servers run what is pending in the databases."""
    launch.mark_tests()
    declared = _load()
    with forking.leaving_no_thread():
        in_memory.run(routine for routine in declared.process if routine.startup)
    if declared.startup:
        firing.arm(declared)


def _load() -> Registry:
    """Return the registry; end a command with one message where a routine cannot work.

    Raises:
        RoutineError: a routine cannot work, and this process serves or is to show tracebacks.

    """
    try:
        return registry.load()
    except RoutineError as error:
        name, *arguments = launch.command() or [""]
        if name in ("", *conf.startup_commands()) or "--traceback" in arguments:
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}{_place(error)}\n")
        raise SystemExit(2) from None


def _place(error: RoutineError) -> str:
    """Return where the project's code declares the routine, if the message does not say it."""
    found = [
        (frame.f_code.co_filename, line)
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("once", "importlib")
    ]
    file, line = found[-1] if found else ("", 0)
    return f" ({file}:{line})" if file and file not in str(error) else ""
