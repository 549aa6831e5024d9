"""Which process is this, and what does it do about routines as it starts."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import Error
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from once import conf, process, registry, runner
from once.base import in_event_loop
from once.exceptions import OnceError, RoutineFailed
from once.log import logger
from once.models import Trigger
from once.registry import Registry
from once.results import Result
from once.text import one_line

__all__ = ["arm", "is_server"]


def arm() -> None:
    """Have :func:`on_ready` called once every app is ready.

    ``Apps.populate`` sets ``apps.ready`` and then calls ``apps.ready_event.set()``: from there
    on, queries are allowed and the models of every app are there, wherever ``once`` stands in
    INSTALLED_APPS. That call is not documented; a test for each Django version pins it.
    """
    if apps.ready:
        return  # ready() called again, by hand: the event has passed
    event = apps.ready_event
    if not isinstance(event, threading.Event):
        raise ImproperlyConfigured(
            "This version of Django starts its apps in a way that this version of django-once "
            "does not know. Upgrade django-once."
        )

    def set_and_start() -> None:
        del event.set
        event.set()
        on_ready()

    event.set = set_and_start  # type: ignore[method-assign]


def on_ready() -> None:
    """Run the in-memory routines, and in servers what is pending in the databases."""
    found = registry.load()
    process.run(routine for routine in found.process if routine.startup)
    # Asked last: a setting that is wrong must not keep `manage.py check` from saying so.
    if not found.startup or not is_server() or conf.startup() == "off":
        return
    if conf.startup() == "background" and not _may_fork():
        _go_on(found, pause=0.0)
    elif in_event_loop():
        _in_thread(lambda: _start(found))
    elif _will_fork():
        with _leaving_no_thread():
            _start(found)
    else:
        _start(found)


def is_server() -> bool:
    """Whether the code that is setting up Django now is that of a server.

    That is ``get_wsgi_application`` or ``get_asgi_application``, a Celery worker or beat, or a
    management command of ``ONCE_STARTUP_COMMANDS``: ``runserver`` only where it serves.
    """
    for frame in _frames():
        where = (frame.f_globals.get("__name__"), frame.f_code.co_name)
        if where in _SERVER_FRAMES:
            return True
        if where == ("django.core.management", "execute"):
            return _is_server_command(getattr(frame.f_locals.get("self"), "argv", []))
    return _is_celery(sys.argv)


_SERVER_FRAMES = {
    ("django.core.wsgi", "get_wsgi_application"),
    ("django.core.asgi", "get_asgi_application"),
}


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_server_command(argv: list[str]) -> bool:
    command = argv[1] if len(argv) > 1 else ""
    if command not in conf.startup_commands() or {"-h", "--help", "--version"} & set(argv):
        return False
    reloads = command == "runserver" and "--noreload" not in argv
    return not reloads or os.environ.get(DJANGO_AUTORELOAD_ENV) == "true"


def _is_celery(argv: list[str]) -> bool:
    program, *arguments = argv or [""]
    name = os.path.basename(program)
    if name != "celery" and not program.endswith(os.path.join("celery", "__main__.py")):
        return False
    rest = iter(arguments)
    for argument in rest:
        if argument in _CELERY_OPTIONS_WITH_VALUE:
            next(rest, None)
        elif not argument.startswith("-"):
            return argument in ("worker", "beat")
    return False


_CELERY_OPTIONS_WITH_VALUE = {
    "-A",
    "--app",
    "-b",
    "--broker",
    "--config",
    "--loader",
    "--result-backend",
    "--workdir",
}


def _will_fork() -> bool:
    """Whether this is gunicorn's master under ``--preload``, whose threads its workers lack."""
    return any(
        frame.f_globals.get("__name__") == "gunicorn.arbiter" and frame.f_code.co_name == "setup"
        for frame in _frames()
    )


def _may_fork() -> bool:
    """Whether this may be a process that forks its workers: a thread must not run across that."""
    return _will_fork() or _is_celery(sys.argv) or "uwsgi" in sys.modules


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


def _in_thread(function: Callable[[], None]) -> None:
    """Call a function in a thread and wait: Django refuses queries beside a running event loop."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:  # raised in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=call, name="once startup", daemon=True)
    thread.start()
    thread.join(conf.startup_timeout())
    if thread.is_alive():
        logger.warning(
            "event=startup_slow seconds=%.1f message=%r",
            conf.startup_timeout(),
            "Routines still run, or wait, in a thread beside the event loop that imports this "
            "application. If one hangs: a body that imports the module which is just being "
            "imported (asgi.py, wsgi.py, settings) waits for ever. Import that at the top of "
            "routines.py.",
        )
        thread.join()
    if raised:
        raise raised[0]


def _start(found: Registry) -> None:
    try:
        problem = _attempt(found)
    except RoutineFailed:
        raise
    except (OnceError, Error) as error:
        problem = one_line(error)
    if problem is None:
        return
    logger.warning(
        "event=startup_incomplete message=%r",
        f"{problem} This server starts all the same; its readiness says no, and it goes on trying.",
    )
    if _will_fork():
        master = os.getpid()

        def go_on_in_worker() -> None:
            if os.getppid() == master:  # not in what a worker forks
                _go_on(found)

        os.register_at_fork(after_in_child=go_on_in_worker)
    else:
        _go_on(found)


def _attempt(found: Registry) -> str | None:
    """Run what is pending; why that could not be done, if so.

    Raises:
        RoutineFailed: a routine failed, here or lately elsewhere, and ``ONCE_STARTUP_FAILURE`` is
            ``"raise"``.

    """
    results = _run(found)
    failed = [result for result in results if result.has_failed]
    if failed and conf.startup_failure() == "raise":
        raise RoutineFailed(_why(failed[0])) from failed[0].error
    undone = failed or [result for result in results if not result.is_done]
    return _why(undone[0]) if undone else None


def _run(found: Registry) -> list[Result]:
    return runner.run(found.startup, registry=found, trigger=Trigger.STARTUP, heeds_delay=True)


def _why(result: Result) -> str:
    return f"{result.routine.name}: {result.message}"


def _go_on(found: Registry, pause: float = 1.0) -> None:
    """Run what is pending beside the server, again and again, until everything is done.

    Args:
        found: the routines.
        pause: seconds until the first try; where there are any, people were told why.

    """

    def keep_trying(pause: float) -> None:
        is_told = pause > 0
        trace: Exception | None
        while True:
            time.sleep(pause)
            try:
                results = _run(found)
            except Exception as error:  # whatever it is, readiness must not say no for ever
                why, later, trace = one_line(error), 0.0, error
            else:
                undone = [result for result in results if not result.is_done]
                if not undone:
                    logger.info("event=startup_complete")
                    return
                why, later = _why(undone[0]), max(result.retry_in for result in undone)
                trace = None
            if is_told:
                logger.info("event=startup_retried message=%r", why, exc_info=trace)
            else:
                is_told = True
                logger.warning("event=startup_incomplete message=%r", why, exc_info=trace)
            # Ever more rarely, and not before what failed may be tried again.
            pause = min(60.0, max(1.0, 2 * pause, later))

    threading.Thread(target=keep_trying, args=[pause], name="once startup", daemon=True).start()
