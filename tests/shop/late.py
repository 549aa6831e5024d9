"""Runs routines in a process each, while a signal's handler raises an exception near a COMMIT.

A body calls :func:`arm` as the last thing it does. From where its transaction is to end, a random
time passes, and its process gets a signal. The times are drawn from those that the rest of an
attempt took where no signal came.
"""

import io
import json
import math
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import django
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.transaction import Atomic, get_connection

from once.signals import attempt_finished

__all__ = ["arm", "main"]


class SoftTimeLimitExceeded(Exception):
    """As Celery raises it, in its handler of SIGUSR1."""


#: What a process is sent, and what the handler raises: the command handles SIGINT by itself.
_LATE: dict[str, tuple[signal.Signals, type[BaseException] | None]] = {
    "interrupt": (signal.SIGINT, None),
    "second handler": (signal.SIGALRM, KeyboardInterrupt),
    "exit": (signal.SIGALRM, SystemExit),
    "soft limit": (signal.SIGUSR1, SoftTimeLimitExceeded),
}

_kind = ""
_delay = 0.0
_is_armed = False
#: When the transaction was to end, and how long the rest of its attempt then took.
_began = _took = 0.0


def arm() -> None:
    """Have the signal come soon after the present transaction, or the next one, is to end."""
    global _is_armed
    _is_armed = not _began  # once in a process


def main() -> None:
    """Run pairs of routines; print a line of JSON for the process of each.

    Arguments: the seed, the number of pairs without a signal, by which times are measured, and the
    number of pairs with one.
    """
    global _kind, _delay
    chance, undisturbed, disturbed = random.Random(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    django.setup()
    call_command("once", "run", "--plan", verbosity=0)  # imports what each would import
    connections.close_all()
    signal.signal(signal.SIGALRM, _pass_on)
    signal.signal(signal.SIGUSR1, _raise)
    attempt_finished.connect(_measure)
    Atomic.__exit__ = _end  # type: ignore[method-assign]
    took: list[float] = []
    for number in range(undisturbed + disturbed):
        if number >= undisturbed:
            _kind, _delay = chance.choice([*_LATE]), _near(chance, took)
        report = _in_a_process(partial(_run, number))
        if not _kind:
            took.append(report["took"])
        print(json.dumps({"number": number, "kind": _kind, "delay": _delay, **report}), flush=True)


def _near(chance: random.Random, took: list[float]) -> float:
    """Return a time of any order of magnitude, because what precedes the COMMIT is the shortest."""
    return chance.choice(took) * math.pow(10, -chance.uniform(0, 3)) + 1e-6


def _in_a_process(function: Callable[[], tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Return what a function reports in a process of its own, and the exit code of that."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        code, report = function()
        with os.fdopen(writing, "w") as told:
            json.dump(report, told)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as told:
        report = json.load(told)
    return {**report, "code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}


def _run(number: int) -> tuple[int, dict[str, Any]]:
    """Return the exit code of the command, or of what ended it, and what was said."""
    out = io.StringIO()
    code, why = 0, ""
    try:
        try:
            names = [f"r{number}", f"n{number}"]
            call_command("once", "run", *names, "--keep-going", stdout=out, stderr=out)
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
    except CommandError as error:
        code, why = error.returncode, f"{error}"
    except KeyboardInterrupt as error:
        code, why = 130, repr(error)
    except BaseException as error:
        code, why = 1, repr(error)
    said = re.findall(r"(\w+)\.\.\. (\w+)", out.getvalue())
    return code, {"said": said, "why": why, "output": out.getvalue(), "took": _took}


def _end(atomic: Atomic, *error: Any, leave: Callable[..., None] = Atomic.__exit__) -> None:
    """Start the time, and end a transaction as Django does."""
    global _is_armed, _began
    if _is_armed and not get_connection(atomic.using).savepoint_ids:
        _is_armed = False
        _began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, _delay)  # none at all, if that is zero
    leave(atomic, *error)


def _measure(**kwargs: object) -> None:
    global _took
    _took = _took or time.perf_counter() - _began


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Raise, or send the signal that something else handles."""
    sent, _ = _LATE[_kind]
    if sent is signal.SIGALRM:
        _raise(number, frame)
    signal.raise_signal(sent)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    _, error = _LATE[_kind]
    assert error is not None
    raise error("late")
