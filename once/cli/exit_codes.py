"""What the exit code of ``manage.py once`` says, and what is said with it."""

import contextlib
from collections.abc import Iterable, Iterator

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.core.management.base import SystemCheckError
from django.db import Error

from once.exceptions import DatabaseUnavailable, Held, OnceError, TimedOut, UnknownRoutine
from once.findings import Finding, Level
from once.management import interrupts
from once.results import Outcome, Result
from once.text import one_line

__all__ = ["FAILED", "HELD", "NOT_DONE", "USAGE", "after", "after_findings", "translated"]

FAILED = 1
USAGE = 2
NOT_DONE = 3
TIMED_OUT = 4
HELD = 5
INTERRUPTED = 130
TERMINATED = 143


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """A context whose errors end the command with the code that they stand for."""
    try:
        yield
    except SystemCheckError as error:
        error.returncode = USAGE
        raise
    except interrupts.Terminated as error:
        raise CommandError(str(error), returncode=TERMINATED) from None
    except KeyboardInterrupt:
        raise CommandError("Interrupted.", returncode=INTERRUPTED) from None
    except UnknownRoutine as error:
        raise CommandError(str(error), returncode=USAGE) from error
    except Held as error:
        raise CommandError(str(error), returncode=HELD) from error
    except (TimedOut, DatabaseUnavailable) as error:
        raise CommandError(str(error), returncode=TIMED_OUT) from error
    except OnceError as error:
        raise CommandError(str(error), returncode=FAILED) from error
    except ImproperlyConfigured as error:
        raise CommandError(str(error), returncode=USAGE) from error
    except Error as error:
        message = f"A database cannot be used: {one_line(error)}"
        raise CommandError(message, returncode=FAILED) from error


def after(results: list[Result], *, no_wait: bool) -> None:
    """End the command with what results stand for; return where everything is done."""
    failed = [result for result in results if result.outcome is Outcome.FAILED]
    if failed:
        lines = [f"{result.routine.name} failed. {result.message}" for result in failed]
        raise CommandError("\n".join(lines), returncode=FAILED) from failed[0].error
    undone = [result for result in results if not result.is_done]
    if not undone:
        return
    code = HELD if any(result.is_held for result in undone) else NOT_DONE
    if code == NOT_DONE and any(result.timed_out for result in undone):
        code = TIMED_OUT
    lines = [f"  {result.routine.name}: {result.message}" for result in undone]
    hint = ["Run this without --no-wait to wait for others."] if no_wait else []
    raise CommandError("\n".join(["Not everything is done.", *lines, *hint]), returncode=code)


def after_findings(found: Iterable[Finding]) -> None:
    """End the command where a fault was found."""
    faults = [f"{one.id} ({one.database})" for one in found if one.level is Level.FAULT]
    if faults:
        message = f"This deployment cannot keep the promise yet: {', '.join(faults)}."
        raise CommandError(message, returncode=FAILED)
