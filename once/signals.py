"""Signals about what the engine does. A receiver that raises does not disturb it.

Each is sent in the thread that runs, or waits, and outside of any transaction of it. The sender is
the :class:`once.routines.base.Routine`; ``waiting`` and ``waited`` have none.
"""

from django.dispatch import Signal

__all__ = [
    "attempt_finished",
    "attempt_lost",
    "attempt_started",
    "progressed",
    "skipped",
    "suspected",
    "throttled",
    "waited",
    "waiting",
]

#: A body starts next.
#: Arguments: ``attempt``, a :class:`once.models.Attempt`.
attempt_started = Signal()

#: An attempt of this process ended.
#: Arguments: ``result``, a :class:`once.results.Result`.
attempt_finished = Signal()

#: This process took over: a predecessor can no longer commit.
#: Arguments: ``attempt``, the :class:`once.models.Attempt` that was lost, and ``successor``, the
#: attempt of this process.
attempt_lost = Signal()

#: A batch of this process is committed.
#: Arguments: ``attempt``, a :class:`once.models.Attempt`; ``seconds`` since this attempt started;
#: ``lap``, the seconds that this batch took. The attempt has ``processed`` items of ``total``,
#: which may be ``None``. Earlier attempts did ``resumed`` of them.
progressed = Signal()

#: A routine was left out: held, backing off, blocked, or behind another routine.
#: Arguments: ``result``, a :class:`once.results.Result`, which says why.
skipped = Signal()

#: A routine that was never tried is to be run next, and may have run under another name. Sent once
#: in a run for all new routines of an app.
#: Arguments: ``message``, which names all that are new and what is to be done.
suspected = Signal()

#: A throttle has the next batch wait: sent again with each look, once a second.
#: Arguments: ``attempt``, a :class:`once.models.Attempt`; ``reason``, which throttle it is and what
#: it says; ``waited``, seconds so far.
throttled = Signal()

#: This process waits: sent at once and then more and more rarely.
#: Arguments: ``name`` of what is waited for, ``reason``, the process or state in the way, and
#: ``waited``, seconds so far.
waiting = Signal()

#: A wait ended, since another process did what was waited for.
#: Arguments: ``name`` of it, ``waited``, the seconds that passed, and ``message``, which is empty
#: unless a newer version was left to do it.
waited = Signal()
