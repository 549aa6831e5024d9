"""Which server this process belongs to, when it forks, and whether its threads live."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from once import conf

__all__ = [
    "ENABLE_THREADS",
    "NO_THREADS",
    "gunicorn_worker",
    "is_server",
    "lacks_threads",
    "once_serving",
    "will_fork",
]

NO_THREADS = (
    "uWSGI runs without --enable-threads: threads stand still between requests, so nothing that "
    "cannot be done at once is done beside the server."
)
ENABLE_THREADS = "Start uWSGI with --enable-threads, or upgrade it to 2.0.27."


def is_server() -> bool:
    """Whether the code that is setting up Django now is that of a server.

    No test is one, whatever it imports: its databases are not made yet, and the real ones are not
    for tests. Else that is ``get_wsgi_application`` or ``get_asgi_application``, a Celery worker or
    beat, or a management command of ``ONCE_STARTUP_COMMANDS``: ``runserver`` only where it serves.
    """
    if _is_test(sys.argv):
        return False
    for frame in _frames():
        where = (frame.f_globals.get("__name__"), frame.f_code.co_name)
        if where in _SERVER_FRAMES:
            return not _is_called_by_tests()
        if where == ("django.core.management", "execute"):
            return _is_server_command(getattr(frame.f_locals.get("self"), "argv", []))
    return _is_celery(sys.argv)


def will_fork() -> bool:
    """Whether this process forks those that serve, which inherit memory but no thread."""
    return _is_gunicorn_master() or _is_uwsgi_master() or _is_celery(sys.argv)


def lacks_threads() -> bool:
    """Whether this is a uWSGI whose threads stand still while no request is handled."""
    uwsgi: Any = sys.modules.get("uwsgi")
    # From 2.0.27 on, threads are always enabled (its `--help`).
    if uwsgi is None or tuple(uwsgi.version_info[:3]) >= (2, 0, 27):
        return False
    return not {"enable-threads", "threads"} & {
        name.decode() if isinstance(name, bytes) else name for name in uwsgi.opt
    }


def gunicorn_worker() -> Any:
    """The worker of gunicorn that is loading the application, its signal handlers set, if any."""
    handler = signal.getsignal(signal.SIGTERM)
    is_its_own = str(getattr(handler, "__module__", "")).startswith("gunicorn.workers.")
    return getattr(handler, "__self__", None) if is_its_own else None


def once_serving(function: Callable[[], None]) -> None:
    """Call a function that starts a thread, where the thread lives: now, or after the fork.

    gunicorn and uWSGI: in each worker. Celery: in the worker's first process, once its pool has
    been forked, or in beat.
    """
    if _is_gunicorn_master():
        master = os.getpid()

        def call_in_worker() -> None:
            if os.getppid() == master:  # not in what a worker forks
                function()

        os.register_at_fork(after_in_child=call_in_worker)
    elif _is_uwsgi_master():
        _chain_post_fork_hook(function)
    elif _is_celery(sys.argv):
        _connect_celery(function)
    else:
        function()


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


def _is_called_by_tests() -> bool:
    """Whether pytest (in a worker of pytest-xdist, too) or unittest loads what is being loaded."""
    names = (str(frame.f_globals.get("__name__")) for frame in _frames())
    return any(name.startswith(("_pytest.", "unittest.")) for name in names)


def _is_test(argv: list[str]) -> bool:
    """Whether a program runs tests; so it is called also in a process that tests spawned."""
    program, command = [*argv, "", ""][:2]
    if os.path.basename(program) in ("pytest", "py.test"):
        return True
    if program.endswith(os.path.join("pytest", "__main__.py")):
        return True
    if program.endswith(os.path.join("unittest", "__main__.py")):
        return True
    is_django = program.endswith(
        ("manage.py", "django-admin", os.path.join("django", "__main__.py"))
    )
    return is_django and command == "test"


def _is_gunicorn_master() -> bool:
    """Whether this is gunicorn's master under ``--preload``."""
    return any(
        frame.f_globals.get("__name__") == "gunicorn.arbiter" and frame.f_code.co_name == "setup"
        for frame in _frames()
    )


def _is_uwsgi_master() -> bool:
    """Whether this is uWSGI without ``--lazy-apps``, before it forks."""
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


def _connect_celery(function: Callable[[], None]) -> None:
    from celery.signals import beat_init, worker_ready

    def call_once(**kwargs: object) -> None:
        worker_ready.disconnect(call_once)  # it comes again after the broker was away
        function()

    worker_ready.connect(call_once, weak=False)
    beat_init.connect(call_once, weak=False)


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
