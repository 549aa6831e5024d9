"""Ending early: what a signal asks of the run in this process, heeded where it does no harm."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["check", "deferred", "forget", "heeded", "interrupt"]

_is_deferred = False
_pending: BaseException | None = None


def interrupt(error: BaseException) -> bool:
    """Ask the run in the main thread to end. To be called by a signal handler there.

    Args:
        error: what to raise.

    Returns:
        Whether it is raised later: after the batch in hand, at the end of a body whose effects
        are outside, or when what commits is over. It is raised at once everywhere else.

    """
    global _pending
    if not _is_deferred:
        raise error
    _pending = error
    return True


def forget() -> None:
    """Drop what was asked for and not raised, before another run."""
    global _pending
    _pending = None


def check() -> None:
    """Raise what was asked for meanwhile. A body that catches it does not undo it."""
    if _pending is not None:
        raise _pending


@contextmanager
def deferred() -> Iterator[None]:
    """A context that an interruption does not break off; at the end it is raised."""
    with _set(True):
        yield
    _check_here()


@contextmanager
def heeded() -> Iterator[None]:
    """A context, inside of one that defers, in which an interruption is raised at once."""
    with _set(False):
        _check_here()
        yield


@contextmanager
def _set(value: bool) -> Iterator[None]:
    global _is_deferred
    if not _is_here():
        yield
        return
    before, _is_deferred = _is_deferred, value
    try:
        yield
    finally:
        _is_deferred = before


def _check_here() -> None:
    global _pending
    if _pending is not None and _is_here() and not _is_deferred:
        error, _pending = _pending, None
        raise error


def _is_here() -> bool:
    # Python handles signals in the main thread only (manual, "signal").
    return threading.current_thread() is threading.main_thread()
