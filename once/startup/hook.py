"""What a process does about routines as it starts."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from once import conf, early, process, registry, server

__all__ = ["arm"]


def arm() -> None:
    """Have :func:`on_ready` called once every app is ready.

    ``Apps.populate`` sets ``apps.ready`` and then calls ``apps.ready_event.set()``: from there
    on, queries are allowed and the models of every app are there, wherever ``once`` stands in
    INSTALLED_APPS. That call is not documented; a test for each Django version pins it.
    """
    if apps.ready:
        return  # ready() called again, by hand: the event has passed
    event = getattr(apps, "ready_event", None)
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
        apps.ready_event = self._event
        self._event.set()
        early.stop()
        on_ready()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)


def on_ready() -> None:
    """Run the in-memory routines, and in servers what is pending in the databases."""
    found = registry.load()
    with _leaving_no_thread() if server.will_fork() else nullcontext():
        process.run(routine for routine in found.process if routine.startup)
        # Asked last: a setting that is wrong must not keep `manage.py check` from saying so.
        if found.startup and server.is_server() and conf.startup() != "off":
            from once import serving  # most of this package, which other processes do without

            serving.begin(found)


@contextmanager
def _leaving_no_thread() -> Iterator[None]:
    """A context at whose end threads that were started in it are gone, or a second has passed.

    Python warns of threads beside a fork, and counts what the operating system knows: before
    3.13 also one that was joined. The executor of an ``async def`` body is not even joined.
    """
    before = _count_threads()
    yield
    until = time.monotonic() + 1.0
    while _count_threads() > before and time.monotonic() < until:
        time.sleep(0.001)


def _count_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # not Linux
        return threading.active_count()
