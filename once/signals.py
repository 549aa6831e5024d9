"""Signals about what the runner does. A receiver that raises does not disturb it."""

from django.dispatch import Signal

__all__ = ["attempt_finished", "attempt_started", "progressed", "waited", "waiting"]

#: A body starts next. The sender is its :class:`once.base.Routine`.
#: Arguments: ``attempt``, a :class:`once.models.Attempt`.
attempt_started = Signal()

#: An attempt of this process ended. The sender is its :class:`once.base.Routine`.
#: Arguments: ``result``, a :class:`once.results.Result`.
attempt_finished = Signal()

#: A batch of this process is committed. The sender is its :class:`once.base.Routine`.
#: Arguments: ``attempt``, a :class:`once.models.Attempt`, with ``processed`` items of ``total``
#: (which may be ``None``), ``resumed`` of them by attempts before; ``seconds`` since this attempt
#: started, and ``lap``, the seconds of them that this batch took.
progressed = Signal()

#: This process waits: sent at once and then more and more rarely. There is no sender.
#: Arguments: ``name`` of what is waited for, ``reason``, who or what is in the way, and
#: ``waited``, seconds so far.
waiting = Signal()

#: What this process wanted was done by another one. There is no sender.
#: Arguments: ``name`` of it, and ``waited``, the seconds that passed.
waited = Signal()
