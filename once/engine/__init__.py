"""The protocol: how routines come to completion, each exactly once.

To be read in this order: ``options`` (what a run is asked for), ``standing`` and ``history`` (what
the record says), ``recorder`` (what is written to it), ``anchors`` (what pruning leaves),
``backoff`` (how to look again), ``claim`` (one routine), ``attempt``, ``body`` and ``batches`` (one
attempt), ``verdict`` (how it ended), ``executor`` (all routines), ``shutdown`` (how signals end
them), and ``migrate`` with ``unapplied``. ``renamed`` is small, and explains itself.
"""
