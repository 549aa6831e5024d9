"""Signals about what the runner does. A receiver that raises does not disturb it.

Each is sent in the thread that runs, or waits, and outside of any transaction of it.
"""

from django.dispatch import Signal

__all__ = [
    "attempt_finished",
    "attempt_lost",
    "attempt_started",
    "progressed",
    "skipped",
    "waited",
    "waiting",
]

#: A body starts next. The sender is its :class:`once.base.Routine`.
#: Arguments: ``attempt``, a :class:`once.models.Attempt`.
attempt_started = Signal()

#: An attempt of this process ended. The sender is its :class:`once.base.Routine`.
#: Arguments: ``result``, a :class:`once.results.Result`.
attempt_finished = Signal()

#: This process took over: an attempt before its own can commit no more. The sender is its
#: :class:`once.base.Routine`.
#: Arguments: ``attempt``, the :class:`once.models.Attempt` that was lost, and ``successor``, the
#: one of this process.
attempt_lost = Signal()

#: A batch of this process is committed. The sender is its :class:`once.base.Routine`.
#: Arguments: ``attempt``, a :class:`once.models.Attempt`, with ``processed`` items of ``total``
#: (which may be ``None``), ``resumed`` of them by attempts before; ``seconds`` since this attempt
#: started, and ``lap``, the seconds of them that this batch took.
progressed = Signal()

#: What was to be run was left: held, put off, blocked, or behind another one. The sender is its
#: :class:`once.base.Routine`.
#: Arguments: ``result``, a :class:`once.results.Result`, which says why.
skipped = Signal()

#: This process waits: sent at once and then more and more rarely. There is no sender.
#: Arguments: ``name`` of what is waited for, ``reason``, who or what is in the way, and
#: ``waited``, seconds so far.
waiting = Signal()

#: What this process wanted was done by another one. There is no sender.
#: Arguments: ``name`` of it, and ``waited``, the seconds that passed.
waited = Signal()
