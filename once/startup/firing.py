"""Fire the run of a starting server. A wrong no leaves a trace; a wrong yes writes nothing.

A known server fires the run: as it makes a handler of Django, as a Celery worker or beat begins, or
as a command of ``ONCE_STARTUP_COMMANDS`` has set Django up. In any other program the handler
only arms it, and the first request fires. A script that makes a handler, and serves no client, runs
nothing.
"""

import logging
import os
import sys
import threading
from functools import wraps
from typing import Any

from django.core.handlers.base import BaseHandler
from django.core.signals import request_started

from once import conf
from once.exceptions import RoutineFailed
from once.log import ensure_handler, tell
from once.routines.registry import Registry
from once.startup import forking, launch

_UID = "once.startup.firing"
_FIRST_REQUEST = "first request"


def arm(declared: Registry) -> None:
    """Have the routines run once this process turns out to be a server. It may be one already."""
    global _firing
    if _firing is None:  # apps may be loaded again
        _firing = _Firing(declared)
        _firing.arm()


class _Firing:
    """The run of this process, which is fired once."""

    def __init__(self, declared: Registry) -> None:
        self._declared = declared
        self._lock = threading.Lock()
        self._is_armed = True
        self._is_told = False

    def arm(self) -> None:
        if launch.is_startup_command():
            self._fire(f"manage.py {launch.command()[0]}")
            return
        if (name := launch.known_server()) in launch.CELERY:
            self._fire(name)
            return
        request_started.connect(self._request_began, weak=False, dispatch_uid=_UID)
        signals: Any = sys.modules.get("celery.signals")
        if signals is not None:
            signals.worker_init.connect(self._celery_began, weak=False)
            signals.beat_init.connect(self._celery_began, weak=False)
        firing, load = self, BaseHandler.load_middleware

        @wraps(load)
        def load_middleware(self: BaseHandler, is_async: bool = False) -> None:
            # Before, because middleware may need what the routines make.
            firing._handler_made(type(self))
            load(self, is_async)

        BaseHandler.load_middleware = load_middleware  # type: ignore[method-assign]

    def _handler_made(self, kind: type) -> None:
        if not self._is_armed or not _serves(kind):
            return
        if name := launch.known_server():
            self._fire(name)
        elif not self._is_told and conf.startup() != "off" and not launch.is_test():
            self._is_told = True
            tell(
                logging.INFO,
                "startup_armed",
                message="No server is known here: the first request starts the routines.",
            )

    def _celery_began(self, **kwargs: Any) -> None:
        try:
            self._fire(launch.known_server())
        except Exception as error:  # Celery would log it and go on
            raise SystemExit(f"{type(error).__name__}: {error}") from error

    def _request_began(self, sender: Any, **kwargs: Any) -> None:
        if _serves(sender):
            self._fire(_FIRST_REQUEST)

    def _fire(self, by: str) -> None:
        if not self._may_fire(by):
            return
        from once.startup import serve  # most of this package, which other processes do without

        if by == _FIRST_REQUEST:
            serve.go_on(self._declared, by)
            return
        try:
            with forking.leaving_no_thread():
                serve.begin(self._declared, by)
        except BaseException as error:
            self._is_armed = True  # a server that tries to load the application again fails again
            if isinstance(error, RoutineFailed):
                # Because its message says all, the frames of this package would only be in the way.
                raise error.with_traceback(None) from None
            raise

    def _may_fire(self, by: str) -> bool:
        """Return whether the run is to begin now, which is so once."""
        is_off = conf.startup() == "off"
        with self._lock:
            was_armed, self._is_armed = self._is_armed, False
        request_started.disconnect(dispatch_uid=_UID)
        if not was_armed or is_off or launch.is_test():
            return False
        if conf.TESTS in os.environ:
            tell(
                logging.WARNING,
                "startup_refused",
                by=by,
                message=f"A test started this process: {conf.TESTS} is in its environment. So it "
                f"runs no routines. Remove {conf.TESTS} from it to have them run.",
            )
            return False
        ensure_handler()
        tell(logging.DEBUG, "startup_fired", by=by)
        return True


_firing: _Firing | None = None


def _serves(kind: Any) -> bool:
    """True if a handler's class is that of a server, not of Django's test client in some script."""
    client: Any = sys.modules.get("django.test.client")
    if not isinstance(kind, type) or not issubclass(kind, BaseHandler):
        return False
    return client is None or not issubclass(kind, client.ClientHandler | client.AsyncClientHandler)
