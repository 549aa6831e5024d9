"""What a starting server does about routines that a database records."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from django.db import Error

from once import conf, interruption, runner, server
from once.base import in_event_loop
from once.exceptions import OnceError, RoutineFailed
from once.log import tell
from once.management import interrupts
from once.models import Trigger
from once.registry import Registry
from once.results import Outcome, Result
from once.text import one_line

__all__ = ["begin"]


def begin(found: Registry) -> None:
    """Run what starting servers run, now or beside the server, as ``ONCE_STARTUP`` says."""
    is_background = conf.startup() == "background"
    if server.lacks_threads():
        same = 'Here, ONCE_STARTUP="background" does what "run" does. ' if is_background else ""
        tell(
            logging.WARNING,
            "no_threads",
            message=f"{server.NO_THREADS} {same}{server.ENABLE_THREADS}",
        )
    if is_background and not server.lacks_threads():
        server.once_serving(lambda: _go_on(found, pause=0.0))
    elif in_event_loop():
        _in_thread(lambda: _start(found))
    elif (worker := server.gunicorn_worker()) is not None:
        with _heeding_signals(worker):
            _start(found)
    else:
        _start(found)


@contextmanager
def _heeding_signals(worker: Any) -> Iterator[None]:
    """A context that a signal ends: gunicorn's worker only notes SIGTERM, and goes on loading."""
    try:
        with interrupts.handled():
            if not worker.alive:  # told before
                interruption.interrupt(KeyboardInterrupt())
            yield
    except KeyboardInterrupt:  # SIGTERM as well; a worker that was told to stop ends with 0
        raise SystemExit(0) from None
    finally:
        signal.siginterrupt(signal.SIGTERM, False)  # as gunicorn had it


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
        tell(
            logging.WARNING,
            "startup_slow",
            seconds=conf.startup_timeout(),
            message="Routines still run, or wait, in a thread beside the event loop that imports "
            "this application. If one hangs: a body that imports the module which is just being "
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
    further = (
        "nothing here tries again: once it is mended, restart this, or call `manage.py once run`."
        if server.lacks_threads()
        else "it goes on trying."
    )
    tell(
        logging.WARNING,
        "startup_incomplete",
        message=f"{problem} This server starts all the same; its readiness says no, and {further}",
    )
    if not server.lacks_threads():
        server.once_serving(lambda: _go_on(found))


def _attempt(found: Registry) -> str | None:
    """Run what is pending; why that could not be done, if so.

    Raises:
        RoutineFailed: a routine failed, here or lately elsewhere, and ``ONCE_STARTUP_FAILURE`` is
            ``"raise"``.

    """
    began = monotonic()
    results = _run(found)
    failed = [result for result in results if result.has_failed]
    if failed and conf.startup_failure() == "raise":
        raise RoutineFailed(_why(failed[0])) from failed[0].error
    undone = failed or [result for result in results if not result.is_done]
    if undone:
        return _why(undone[0])
    _tell_complete(results, monotonic() - began)
    return None


def _run(found: Registry) -> list[Result]:
    return runner.run(found.startup, registry=found, trigger=Trigger.STARTUP, heeds_delay=True)


def _tell_complete(results: list[Result], seconds: float) -> None:
    """Say in one line what this process did about all of them."""
    outcomes = [result.outcome for result in results]
    tell(
        logging.INFO,
        "startup_complete",
        total=len(outcomes),
        ran=outcomes.count(Outcome.RAN),
        waited=outcomes.count(Outcome.WAITED),
        seconds=seconds,
    )


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
        began = monotonic()
        while True:
            time.sleep(pause)
            try:
                results = _run(found)
            except Exception as error:  # whatever it is, readiness must not say no for ever
                why, later, trace = one_line(error), 0.0, error
            else:
                undone = [result for result in results if not result.is_done]
                if not undone:
                    _tell_complete(results, monotonic() - began)
                    return
                why, later = _why(undone[0]), max(result.retry_in for result in undone)
                trace = None
            if is_told:
                tell(logging.INFO, "startup_retried", trace, message=why)
            else:
                is_told = True
                tell(logging.WARNING, "startup_incomplete", trace, message=why)
            # Ever more rarely, and not before what failed may be tried again.
            pause = min(60.0, max(1.0, 2 * pause, later))

    threading.Thread(target=keep_trying, args=[pause], name="once startup", daemon=True).start()
