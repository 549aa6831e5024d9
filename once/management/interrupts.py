"""SIGTERM and Ctrl-C end a run where it does no harm; a second one ends the process at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from once import interruption

__all__ = ["Terminated", "handled"]

_NOTE = (
    "\nEnding: first the batch in hand, or the body whose effects are outside, comes to its end. "
    "A second signal ends at once.\n"
)


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""

    def __str__(self) -> str:
        return "Ended by SIGTERM."


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """A context in which a signal ends the run: the body rolls back and the history says so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interruption.forget()
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        error = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        if interruption.interrupt(error):
            with contextlib.suppress(OSError):
                # Not print(): the signal may have come in the middle of one.
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _NOTE.encode())

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
