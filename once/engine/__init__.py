"""The protocol: how routines come to completion, each exactly once.

To be read after ``once.record``, in this order: ``options`` (what a run is asked for), ``backoff``
(how to look again), ``claim`` (one routine), ``attempt`` and ``body`` (one attempt), ``verdict``
(how it ended), ``roles`` (what another process is to do), ``executor`` (all routines) and
``shutdown`` (how signals end them). ``rehearsal`` is a dry run, beside all that.
"""
