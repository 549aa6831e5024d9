"""Run the recorded routines of a starting server, before it serves or beside it."""

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from django.conf import settings
from django.db import Error

from once import conf
from once.databases import threads
from once.engine import executor, shutdown
from once.engine.options import RunOptions
from once.exceptions import OnceError, RoutineFailed
from once.log import forget, news, tell
from once.models import Trigger
from once.results import Outcome, Reason, Result
from once.routines import registry
from once.routines.contexts import outside_event_loop
from once.routines.registry import Registry
from once.startup import forking, launch
from once.text import one_line

#: gunicorn's exit code for an application that cannot be loaded.
_NOT_LOADED = 4

#: The name of all of it in the memory of the log.
_STARTUP = "startup"


def begin(declared: Registry, by: str) -> None:
    """Run what starting servers run, now or beside the server, as ``ONCE_STARTUP`` says.

    Args:
        declared: all routines of this code.
        by: the server or command that starts them.

    Raises:
        RoutineFailed: a routine failed, here or lately elsewhere, ``ONCE_STARTUP_FAILURE`` is
            ``"raise"``, and this is no worker of a server that was up, whose end would end all.
        SystemExit: the same, in a process of gunicorn.

    """
    is_background = conf.startup() == "background"
    is_replacement = launch.is_replacement()
    if is_replacement:
        registry.site.was_complete = True
    if forking.lacks_threads():
        same = 'Here, ONCE_STARTUP="background" does what "run" does. ' if is_background else ""
        message = f"{forking.NO_THREADS} {same}{forking.ENABLE_THREADS}"
        tell(logging.WARNING, "no_threads", message=message)
    elif is_background:
        forking.once_serving(lambda: go_on(declared, by))
        return
    with _heeding_signals(), outside_event_loop():
        _start(declared, by, is_replacement=is_replacement)


def _start(declared: Registry, by: str, *, is_replacement: bool) -> None:
    """Run what is pending. If that cannot be done, say so, and go on beside the server."""
    level = logging.WARNING
    try:
        undone = _run(declared, by, monotonic())
    except Exception as error:
        if not is_replacement and not isinstance(error, (OnceError, Error)):
            raise  # the project's mistake, such as a setting
        problem = one_line(error)
    else:
        if not undone:
            return
        failed = [result for result in undone if result.reason is Reason.FAILED]
        # First what failed here, because what failed elsewhere is known by now.
        failed.sort(key=lambda result: result.error is None)
        if failed and conf.startup_failure() == "raise" and not is_replacement:
            if failed[0].error is None:  # of which nothing here is logged
                if worker := launch.gunicorns_worker():
                    # Because gunicorn trips over a second one that fails while it ends them all.
                    time.sleep(worker.age)  # 1, 2, 3 and so on
                tell(logging.ERROR, "startup_failed", by=by, message=_why(failed[0]))
            if by == "gunicorn":  # whose workers would all print a traceback that says no more
                raise SystemExit(_NOT_LOADED)
            raise RoutineFailed(_why(failed[0]))  # without a cause, which the log has
        problem, level = _why((failed or undone)[0]), _level((failed or undone)[0])
    starts = (
        "This worker serves all the same, since it replaces one of a server that was up; "
        if is_replacement
        else "This server starts all the same; its readiness says no, and "
    )
    further = (
        "nothing here tries again: once it is mended, restart this, or call `manage.py once run`."
        if forking.lacks_threads()
        else "it goes on trying."
    )
    if level == logging.INFO:
        further = "the routine is not tried here."
    # Because it is told here, the thread beside the server does not repeat it.
    news(logging.INFO, _STARTUP, problem)
    tell(level, "startup_incomplete", by=by, message=f"{problem} {starts}{further}")
    if not forking.lacks_threads():
        forking.once_serving(lambda: go_on(declared, by, pause=1.0))


def go_on(declared: Registry, by: str, *, pause: float = 0.0) -> None:
    """Run what is pending beside the server, again and again, until everything is done.

    The first try comes after a pause where a problem was told already, and at once otherwise.
    """
    threads.start(lambda: _keep_trying(declared, by, pause), "once startup")


def _keep_trying(declared: Registry, by: str, pause: float) -> None:
    is_told = pause > 0
    began = monotonic()
    while True:
        time.sleep(pause)
        trace: Exception | None = None
        first = logging.WARNING
        try:
            undone = _run(declared, by, began)
        except Exception as error:  # whatever it is, readiness must not say no for ever
            problem, later, trace = one_line(error), 0.0, error
        else:
            if not undone:
                return
            problem, later = _why(undone[0]), max(result.retry_in for result in undone)
            first = _level(undone[0])
        level = news(logging.INFO, _STARTUP, problem)
        if is_told:
            tell(level, "startup_retried", trace, message=problem)
        else:
            tell(first, "startup_incomplete", trace, by=by, message=problem)
            is_told = True
        # Ever more rarely, and not before what failed may be tried again.
        pause = min(60.0, max(1.0, 2 * pause, later))


def _run(declared: Registry, by: str, began: float) -> list[Result]:
    """Run what is pending, and return what is not done: if nothing, say so in one line."""
    respects_backoff = not launch.is_reloaded() and not settings.DEBUG
    role = conf.role(conf.WORKER if by in launch.CELERY else "")
    options = RunOptions(trigger=Trigger.STARTUP, respects_backoff=respects_backoff, role=role)
    results = executor.run(declared.startup, declared, options)
    # Last what is left to another role: if that comes first, this process has no more to do.
    undone = sorted((result for result in results if not result.is_done), key=_is_elsewhere)
    if not undone:
        registry.site.was_complete = True  # for readiness
        forget(_STARTUP)
        outcomes = [result.outcome for result in results]
        tell(
            logging.INFO,
            "startup_complete",
            by=by,
            total=len(outcomes),
            ran=outcomes.count(Outcome.RAN),
            waited=outcomes.count(Outcome.WAITED),
            seconds=monotonic() - began,
        )
    return undone


def _is_elsewhere(result: Result) -> bool:
    return result.reason is Reason.OTHER_ROLE


def _level(first: Result) -> int:
    """Return the level at which to tell what is undone: no fault, if a role does it."""
    return logging.INFO if _is_elsewhere(first) else logging.WARNING


def _why(result: Result) -> str:
    return f"{result.routine.name}: {result.message}"


#: The signals by which servers and terminals end a process.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

#: Attributes by which servers note a signal: gunicorn, uvicorn, granian.
_NOTES = {"alive": False, "should_exit": True, "interrupt_signal": True}


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """A context that a signal ends, of which many servers only take note, and go on loading.

    The server is told after the run has ended, and the attempt recorded.

    Raises:
        SystemExit: the server took note of it.

    """
    if launch.known_server() == launch.MOD_WSGI:
        yield  # it ignores the handlers that Python sets, and logs a traceback for each
        return
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    try:
        with shutdown.handled(*_ENDING, are_forwarded=True):
            owners = [getattr(handler, "__self__", None) for handler in handlers.values()]
            if any(map(_was_told, [*owners, _let_worker_hear()])):
                raise SystemExit(0)
            yield
    except shutdown.Signalled as error:
        signal.raise_signal(error.number)
        raise SystemExit(0) from None
    finally:
        _restart_calls(handlers)


def _let_worker_hear() -> object:
    """Have a worker of gunicorn take note of signals that came before the run, and return it.

    Because gevent's hub, and an event loop that does not run yet, call its handlers only in their
    turn, each gets some.
    """
    worker: Any = launch.gunicorns_worker()
    if worker is None:
        return None
    time.sleep(0)  # which gevent makes a turn of its hub
    loop = getattr(worker, "loop", None)
    if loop is not None and not loop.is_running():
        for _ in range(3):  # it reads the signal in one turn, and calls the handler in the next
            loop.call_soon(loop.stop)
            loop.run_forever()
    return worker


def _was_told(owner: object) -> bool:
    """Return True if a server took note of a signal before the run."""
    return any(getattr(owner, name, None) is value for name, value in _NOTES.items())


def _restart_calls(handlers: Mapping[signal.Signals, object]) -> None:
    """Have the system restart calls that a signal interrupts, as gunicorn and asyncio do."""
    for number, handler in handlers.items():
        module = str(getattr(handler, "__module__", ""))
        if module.startswith("asyncio.") or (
            module.startswith("gunicorn.") and number == signal.SIGTERM
        ):
            signal.siginterrupt(number, False)
