"""Find out what launched this process: a known server, a worker's replacement, a command, a test.

The stack tells, not the name of the program: a server that runs has called what is called now. A
script has not, nor has `gunicorn --check-config`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from once import conf

MOD_WSGI = "mod_wsgi"
CELERY_WORKER, CELERY_BEAT = CELERY = ("celery worker", "celery beat")

#: The function that loads the apps, by module.
LOADS_APPS = ("django.apps.registry", "populate")

_GUNICORNS_WORKER = ("gunicorn.arbiter", "spawn_worker")


class _Server(NamedTuple):
    """A server that loads the application in a certain function."""

    name: str
    #: True, by the local names of that function, if this process replaces a worker.
    replaces: Callable[[dict[str, Any]], bool] = lambda names: False


def _number() -> int:
    """Return the number of this process at its parent, from 1 (manual, "multiprocessing")."""
    process = sys.modules["multiprocessing"].current_process()  # by which it was started
    return int((getattr(process, "_identity", None) or (0,))[-1])


_HYPERCORN = _Server("hypercorn", lambda names: _number() > int(names["config"].workers))

#: Servers, by the module and the function that runs while they load the application.
_SERVERS = {
    ("gunicorn.arbiter", "setup"): _Server("gunicorn"),  # the master, under --preload
    _GUNICORNS_WORKER: _Server(
        "gunicorn", lambda names: names["worker"].age > names["worker"].cfg.workers
    ),
    ("uvicorn.main", "run"): _Server("uvicorn"),
    ("uvicorn.server", "_serve"): _Server("uvicorn"),
    ("hypercorn.asyncio.run", "asyncio_worker"): _HYPERCORN,
    ("hypercorn.asyncio.run", "uvloop_worker"): _HYPERCORN,
    ("hypercorn.trio.run", "trio_worker"): _HYPERCORN,
    ("granian.server.mp", "wrapped"): _Server(
        "granian", lambda names: _number() > int(names["worker_id"])
    ),
    ("granian.server.mt", "_serve"): _Server("granian"),  # where Python has no GIL
    ("daphne.cli", "run"): _Server("daphne"),
    ("celery.worker.worker", "setup_instance"): _Server(CELERY_WORKER),
    ("celery.beat", "start"): _Server(CELERY_BEAT),
}


def known_server() -> str:
    """Return the name of the server that is loading the application in this process, or ``""``."""
    if "uwsgi" in sys.modules:  # exists in its processes only
        return "uwsgi"
    if hasattr(sys.modules.get("mod_wsgi"), "process_group"):  # its installer is a package, too
        return MOD_WSGI
    return next((_SERVERS[where].name for _, where in frames() if where in _SERVERS), "")


def is_replacement() -> bool:
    """True if this process replaces a worker of a server that is up, and loads the application.

    gunicorn, hypercorn, granian and uWSGI end all of their workers where one fails to start.
    Because such a server has started a later worker, therefore its first ones did not fail.
    uvicorn is no such server: it starts anew what failed, and the other workers serve on.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is not None and uwsgi.worker_id():
        return bool(uwsgi.workers()[uwsgi.worker_id() - 1]["respawn_count"] > 1)
    return any(
        where in _SERVERS and _SERVERS[where].replaces(frame.f_locals) for frame, where in frames()
    )


def gunicorns_worker() -> Any:
    """Return the worker of gunicorn that is loading the application, or ``None``."""
    calls = (frame for frame, where in frames() if where == _GUNICORNS_WORKER)
    return next((frame.f_locals["worker"] for frame in calls), None)


def command() -> list[str]:
    """Return the management command that is on the stack, with its arguments, or nothing."""
    for frame, where in frames():
        if where == ("django.core.management", "execute"):
            return list(getattr(frame.f_locals.get("self"), "argv", []))[1:]
    return []


def is_startup_command() -> bool:
    """True if the management command is one of ``ONCE_STARTUP_COMMANDS``.

    ``runserver`` is one only where it serves: not in the process that watches the files.
    """
    name, *arguments = command() or [""]
    if name not in conf.startup_commands() or {"-h", "--help", "--version"} & set(arguments):
        return False
    reloads = name == "runserver" and "--noreload" not in arguments
    return not reloads or is_reloaded()


def is_reloaded() -> bool:
    """True in the child of ``runserver``, which starts anew when code changes."""
    return os.environ.get(DJANGO_AUTORELOAD_ENV) == "true"


def mark_tests() -> None:
    """Tell what `manage.py test` starts that a test started it, as the plugin of pytest does."""
    if command()[:1] == ["test"]:
        os.environ[conf.TESTS] = str(os.getpid())


def is_test() -> bool:
    """True if this process itself runs tests."""
    utils: Any = sys.modules.get("django.test.utils")
    is_set_up = utils is not None and hasattr(utils._TestState, "saved_data")
    return is_set_up or os.environ.get(conf.TESTS) == str(os.getpid())


def frames() -> Iterator[tuple[FrameType, tuple[Any, str]]]:
    """Yield the frames of this thread's stack, each with its module's name and its function's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame, (frame.f_globals.get("__name__"), frame.f_code.co_name)
        frame = frame.f_back
