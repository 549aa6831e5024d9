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
    return _is_gunicorn_master() or _is_uwsgi_master() or _is_celery_worker()


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
    if _is_gunicorn_master():
        master = os.getpid()

        def call_in_worker() -> None:
            if os.getppid() == master:  # not in what a worker forks
                function()

        os.register_at_fork(after_in_child=call_in_worker)
    elif _is_uwsgi_master():
        _chain_post_fork_hook(function)
    elif _is_celery_worker():
        _call_when_ready(function)
    else:
        function()


def _is_gunicorn_master() -> bool:
    """True if this is gunicorn's master under ``--preload``."""
    return any(where == ("gunicorn.arbiter", "setup") for _, where in launch.frames())


def _is_uwsgi_master() -> bool:
    """True if this is uWSGI without ``--lazy-apps``, before it forks."""
    uwsgi: Any = sys.modules.get("uwsgi")
    return uwsgi is not None and uwsgi.worker_id() == 0


def _chain_post_fork_hook(function: Callable[[], None]) -> None:
    # uWSGI forks without Python's hooks; `uwsgidecorators` sets this one when it is imported.
    try:
        from uwsgidecorators import postfork
    except Exception:  # it raises a bare one in a uWSGI without a master process
        sys.modules["uwsgi"].post_fork_hook = function  # type: ignore[attr-defined]
    else:
        postfork(function)


def _is_celery_worker() -> bool:
    """True if this is a Celery worker that is about to make its pool."""
    return launch.known_server() == launch.CELERY_WORKER


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
