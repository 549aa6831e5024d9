"""Exit codes of ``manage.py once``, and the messages that go with them."""

import contextlib
import signal
from collections.abc import Iterator

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.core.management.base import SystemCheckError
from django.db import Error

from once.engine import shutdown
from once.exceptions import DatabaseUnavailable, Held, NotDone, OnceError, TimedOut, UnknownRoutine
from once.results import Outcome, Reason, Result
from once.text import escaped, inline, one_line

FAILED = 1
USAGE = 2
NOT_DONE = 3
TIMED_OUT = 4
HELD = 5
#: A shell's number for a program that a signal ended is this, and the number of the signal.
_SIGNALLED = 128

_DOCTOR = "`manage.py once doctor` says what to do."

#: The first kind that fits an error counts.
_CODES = {
    UnknownRoutine: USAGE,
    Held: HELD,
    TimedOut: TIMED_OUT,
    NotDone: NOT_DONE,
    DatabaseUnavailable: TIMED_OUT,
    OnceError: FAILED,
    ImproperlyConfigured: USAGE,
}


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """A context whose errors end the command with the code that they stand for."""
    try:
        yield
    except SystemCheckError as error:
        error.returncode = USAGE
        raise
    except KeyboardInterrupt as error:
        if shutdown.is_handled():  # a body called this command: the run around it ends too
            raise
        number = getattr(error, "number", signal.SIGINT)
        message = str(shutdown.Signalled(number))
        raise CommandError(message, returncode=_SIGNALLED + number) from None
    except (OnceError, ImproperlyConfigured) as error:
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        raise CommandError(escaped(str(error)), returncode=code) from error
    except Error as error:
        message = f"A database cannot be used: {one_line(error).rstrip('.')}. {_DOCTOR}"
        raise CommandError(message, returncode=TIMED_OUT) from error


def misused(message: str) -> CommandError:
    """Return the error that ends a command which was called as it cannot be."""
    return CommandError(message, returncode=USAGE)


def after(results: list[Result], *, no_wait: bool = False) -> None:
    """End the command with what results stand for; return where everything is done."""
    failed = [result for result in results if result.outcome is Outcome.FAILED]
    if failed:
        lines = [f"{result.routine.name} failed. {inline(result.message)}" for result in failed]
        raise CommandError("\n".join(lines), returncode=FAILED) from failed[0].error
    # Because a process of the other role runs a routine of that role, it is not missing here.
    undone = [each for each in results if not each.is_done and each.reason is not Reason.OTHER_ROLE]
    if not undone:
        return
    reasons = {result.reason for result in undone}
    code = TIMED_OUT if Reason.TIMED_OUT in reasons else NOT_DONE
    code = HELD if any(result.is_for_a_person for result in undone) else code
    lines = [f"  {result.routine.name}: {inline(result.message)}" for result in undone]
    hint = ["Run this without --no-wait to wait for other processes."] if no_wait else []
    raise CommandError("\n".join(["Not everything is done.", *lines, *hint]), returncode=code)
