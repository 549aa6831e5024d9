"""Detect whether the server of this process forks, and whether its threads live."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from once.startup import launch

NO_THREADS = (
    "uWSGI runs without --enable-threads: threads stand still between requests, so nothing that "
    "cannot be done at once is done beside the server."
)
ENABLE_THREADS = "Start uWSGI with --enable-threads, or upgrade it to 2.0.27."


def will_fork() -> bool:
    """True if this process forks the serving processes, which inherit memory but no thread."""
    return _forker() != ""


def _forker() -> str:
    """Return the server whose serving processes this process is about to fork, or ``""``."""
    if any(where == ("gunicorn.arbiter", "setup") for _, where in launch.frames()):
        return "gunicorn"  # its master, under --preload
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is not None and uwsgi.worker_id() == 0:
        return "uwsgi"  # without --lazy-apps
    return launch.CELERY_WORKER if launch.known_server() == launch.CELERY_WORKER else ""


@contextmanager
def leaving_no_thread() -> Iterator[None]:
    """A context at whose end, where this process forks, threads that were started in it are gone.

    Or a second has passed. Python warns of threads beside a fork, and counts what the operating
    system knows: before 3.13 also one that was joined. The executor of an ``async def`` body is not
    even joined.
    """
    if not will_fork():
        yield
        return
    before = _count_threads()
    yield
    until = time.monotonic() + 1.0
    while _count_threads() > before and time.monotonic() < until:
        time.sleep(0.001)


def lacks_threads() -> bool:
    """True if this is a uWSGI whose threads stand still while no request is handled."""
    uwsgi: Any = sys.modules.get("uwsgi")
    # From 2.0.27 on, threads are always enabled (its `--help`).
    if uwsgi is None or tuple(uwsgi.version_info[:3]) >= (2, 0, 27):
        return False
    return not {"enable-threads", "threads"} & {
        name.decode() if isinstance(name, bytes) else name for name in uwsgi.opt
    }


def once_serving(function: Callable[[], None]) -> None:
    """Call a function that starts a thread, where the thread lives: now, or after the fork.

    gunicorn and uWSGI: in each worker. A Celery worker: in its first process, once its pool has
    been forked.
    """
    forker = _forker()
    if forker == "gunicorn":
        master = os.getpid()

        def call_in_worker() -> None:
            if os.getppid() == master:  # not in what a worker forks
                function()

        os.register_at_fork(after_in_child=call_in_worker)
    elif forker == "uwsgi":
        _chain_post_fork_hook(function)
    elif forker == launch.CELERY_WORKER:
        _call_when_ready(function)
    else:
        function()


def _chain_post_fork_hook(function: Callable[[], None]) -> None:
    # uWSGI forks without Python's hooks; `uwsgidecorators` sets this one when it is imported.
    try:
        from uwsgidecorators import postfork
    except Exception:  # it raises a bare one in a uWSGI without a master process
        sys.modules["uwsgi"].post_fork_hook = function  # type: ignore[attr-defined]
    else:
        postfork(function)


def _call_when_ready(function: Callable[[], None]) -> None:
    from celery.signals import worker_ready

    def call_once(**kwargs: object) -> None:
        worker_ready.disconnect(call_once)  # it comes again after the broker was away
        function()

    worker_ready.connect(call_once, weak=False)


def _count_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # not Linux
        return threading.active_count()
