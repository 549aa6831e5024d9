"""Ending early: what a signal asks of the run in this process, heeded where it does no harm."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["check", "deferred", "forget", "interrupt"]

_deferrals = 0
_pending: BaseException | None = None


def interrupt(error: BaseException) -> bool:
    """Ask the run in the main thread to end. To be called by a signal handler there.

    Args:
        error: what to raise.

    Returns:
        Whether it is raised later: after the batch in hand, or at the end of a body whose effects
        are outside. It is raised at once everywhere else.

    """
    global _pending
    if not _deferrals:
        raise error
    _pending = error
    return True


def forget() -> None:
    """Drop what was asked for and not raised, before another run."""
    global _pending
    _pending = None


def check() -> None:
    """Raise what was asked for meanwhile."""
    global _pending
    if _pending is not None and _is_here():
        error, _pending = _pending, None
        raise error


@contextmanager
def deferred() -> Iterator[None]:
    """A context that an interruption does not break off; it is raised at the end."""
    global _deferrals
    if not _is_here():
        yield
        return
    _deferrals += 1
    try:
        yield
    finally:
        _deferrals -= 1
    check()


def _is_here() -> bool:
    # Python handles signals in the main thread only (manual, "signal").
    return threading.current_thread() is threading.main_thread()
