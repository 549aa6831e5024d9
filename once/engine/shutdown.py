"""Ending early: a signal asks the run to end, and is heeded where that does no harm."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NOTE = (
    "\nEnding: first the batch in hand, or the body whose effects are outside, comes to its end. "
    "A second signal ends at once. Of SIGTERM, two within 5 s count as one.\n"
)

#: Seconds in which another SIGTERM has the same cause: what stops a service may send it to all
#: processes, and a server sends it to its workers.
_ECHO = 5.0


class _State:
    """The state of the main thread's run."""

    #: The error that a signal asked the run to end with. It stays until the run is over.
    pending: BaseException | None = None
    #: True if a run has taken over the signals of this process.
    is_handled = False
    is_deferred = False
    #: True if the body that called the innermost run defers an interruption.
    is_body_deferred = False


_now = _State()


class Signalled(KeyboardInterrupt):
    """A signal asked the run to end."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __str__(self) -> str:
        if self.number == signal.SIGINT:
            return "Interrupted."
        return f"Ended by {signal.Signals(self.number).name}."


def is_handled() -> bool:
    """Return True inside of :func:`handled`."""
    return _now.is_handled


@contextmanager
def handled(*numbers: int, are_forwarded: bool = False) -> Iterator[None]:
    """A context in which a signal ends the run: the body rolls back and the history says so.

    A run that a body of another run calls leaves the signals to that one. It heeds them where the
    body may be broken off.

    Args:
        numbers: the signals. Those that this process ignores, or handles in C, are left alone.
        are_forwarded: True where a terminal and a supervisor may both send a signal for one
            Ctrl-C. Then only a signal that comes twice ends the process at once.

    Raises:
        Signalled: at the end, or where the run is broken off.

    """
    if not _is_here() or _now.is_handled:
        with _set(is_body_deferred=_now.is_deferred):
            yield
        return
    before = {
        number: handler
        for number in numbers
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }

    def end(number: int, frame: FrameType | None) -> None:
        until = time.monotonic() + _ECHO

        def end_at_once(number: int, frame: FrameType | None) -> None:
            if time.monotonic() > until:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        for each in [number] if are_forwarded else before:
            is_echoed = each == number == signal.SIGTERM
            signal.signal(each, end_at_once if is_echoed else signal.SIG_DFL)
        if interrupt(Signalled(number)):
            with suppress(OSError):
                # Not print(): the signal may have come in the middle of one.
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _NOTE.encode())

    with _set(is_handled=True, pending=None):
        for number in before:
            signal.signal(number, end)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def interrupt(error: BaseException) -> bool:
    """Ask the run in the main thread to end with an error. For a signal handler there.

    Return True if it is raised later: after the batch in hand, at the end of a body whose effects
    are outside, or when what commits is over. It is raised at once everywhere else.
    """
    if _now.pending is not None:
        return False
    _now.pending = error
    if not _now.is_deferred:
        raise error
    return True


def check() -> None:
    """Raise what was asked for meanwhile. A body that catches it does not undo it."""
    if _now.pending is not None:
        raise _now.pending


def heed() -> None:
    """Raise what was asked for meanwhile, in the main thread, where nothing defers it."""
    if _is_here() and not _now.is_deferred:
        check()


@contextmanager
def deferred() -> Iterator[None]:
    """A context that an interruption does not break off; at the end it is raised."""
    with _set(is_deferred=True):
        yield
    heed()


@contextmanager
def heeded() -> Iterator[None]:
    """A context, inside of one that defers, in which an interruption is raised at once.

    Except in a run that a body called which must not be broken off.
    """
    with _set(is_deferred=_now.is_body_deferred):
        heed()
        yield


@contextmanager
def _set(**values: object) -> Iterator[None]:
    """A context in which the run's state has other values. In other threads it changes nothing."""
    if not _is_here():
        yield
        return
    before = {name: getattr(_now, name) for name in values}
    vars(_now).update(values)
    try:
        yield
    finally:
        vars(_now).update(before)


def _is_here() -> bool:
    # Python handles signals in the main thread only (manual, "signal").
    return threading.current_thread() is threading.main_thread()
