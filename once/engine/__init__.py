"""The protocol: how routines come to completion, each exactly once.

To be read after ``once.record``, in this order: ``options`` (what a run is asked for), ``backoff``
(how to look again), ``claim`` (one routine), ``attempt`` and ``body`` (one attempt), ``verdict``
(how it ended), ``executor`` (all routines), ``shutdown`` (how signals end them), ``migrate``, and
``gates`` with ``gatekeeper`` (migrations that need routines).
"""
