"""The protocol: how routines come to completion, each exactly once.

To be read after ``once.record``, in this order: ``options`` (what a run is asked for), ``backoff``
(how to look again) and ``siblings`` (in turns), ``claim`` (one routine), ``attempt`` and ``body``
(one attempt), ``batching`` and ``pacing`` (its batches), ``verdict`` (how it ended), ``executor``
(all routines), for which ``roles``, ``renaming`` and ``suspicions`` work, and ``shutdown`` (how
signals end them). ``rehearsal`` is a dry run, beside all that.
"""
