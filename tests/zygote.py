"""Starts ``manage.py`` in a fifth of the time: forked from a process that has imported Django.

That process knows no project: its children get their settings from their own environment, and set
Django up. A line of its stdin is the JSON of arguments, environment and two files for the output.
It prints the id of each child, and writes the exit code of each that ended beside its first file.
"""

import atexit
import contextlib
import gc
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

__all__ = ["MANAGE", "Zygote", "is_forkable", "zygote"]

ROOT = Path(__file__).parent.parent
MANAGE = ROOT / "tests" / "manage.py"

#: What Python reads only as it starts.
_INTERPRETER = {"PYTHONDEVMODE": "1", "PYTHONMALLOC": "pymalloc"}
_PRELOADED = (
    "asgiref.sync",
    "concurrent.futures.thread",
    "django.contrib.auth.management",
    "django.contrib.contenttypes.management",
    "django.core.checks.registry",
    "django.core.management.commands.migrate",
    "django.core.serializers.json",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.executor",
    "django.forms",
    "django.utils.timezone",
    "django.views.debug",
    "environ",
    "filelock",
    "psycopg_binary",
    "tqdm",
)


def is_forkable(arguments: list[str], environment: dict[str, str]) -> bool:
    """Whether a fork is the same to a test: no server, and no other interpreter."""
    given = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
    given = {name: given.get(name, "") for name in {*given, *_INTERPRETER, *_inherited()}}
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        given.pop(name, None)
    wanted = {name: value for name, value in (_inherited() | _INTERPRETER).items() if name in given}
    return (
        given == wanted
        and "LD_PRELOAD" not in environment
        and not {"runserver", "testserver", "test"} & set(arguments)
    )


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}


class Zygote:
    """The process that forks, as a test sees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"],
            cwd=ROOT,
            env={**os.environ, **_INTERPRETER},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.stop)

    def start(
        self, arguments: list[str], environment: dict[str, str], out: Path, err: Path | None = None
    ) -> int:
        """Start ``manage.py``; the id of its process."""
        line = json.dumps([arguments, environment, str(out), str(err or out)])
        with self._lock:
            _stream(self._process.stdin).write(line + "\n")
            _stream(self._process.stdin).flush()
            return int(_stream(self._process.stdout).readline())

    def stop(self) -> None:
        """End it, but none of its children."""
        atexit.unregister(self.stop)
        with self._process:
            pass


@cache
def zygote() -> Zygote:
    """The one of this process."""
    return Zygote()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


# From here on: in the process that forks.


def _fork_for_each_line() -> list[str]:
    """Return in each child, with its arguments; never in the process that forks."""
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            import_module(name)
    # Because a collection in a child would write to each page of what it shares, and so copy it.
    gc.freeze()
    codes: dict[int, Path] = {}
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        rest = b""
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if woken in ready:
                os.read(woken, 4096)
                _reap(codes)
            if 0 not in ready:
                continue
            data = os.read(0, 65536)
            if not data:
                os._exit(0)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                arguments, environment, out, err = json.loads(line)
                pid = os.fork()
                if not pid:
                    break
                codes[pid] = Path(out).with_suffix(".code")
                os.write(1, b"%d\n" % pid)
            else:
                continue
            break
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(woken)
    os.close(waker)
    _become(environment, out, err)
    return [str(MANAGE), *arguments]


def _reap(codes: dict[int, Path]) -> None:
    while codes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        codes.pop(pid).write_text(f"{os.waitstatus_to_exitcode(status)}\n")


def _become(environment: dict[str, str], out: str, err: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    files = [os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) for name in (out, err)]
    for stream, file in enumerate([nothing, *files]):
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [each for each in environment["PYTHONPATH"].split(os.pathsep) if each]


if __name__ == "__main__":
    sys.argv = _fork_for_each_line()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
