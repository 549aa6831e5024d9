"""The protocol: how routines come to completion, each exactly once.

To be read in this order: ``history`` and ``standing`` (what the record says), ``recorder`` (what is
written to it), ``backoff`` (how to look again), ``claim`` (one routine), ``attempt``, ``body`` and
``batches`` (one attempt), ``verdict`` (how it ended), ``executor`` (all routines), ``shutdown``
(how signals end them), ``anchors`` (what pruning leaves), and ``migrate`` with ``unapplied``.
``options`` and ``renamed`` are small, and explain themselves.
"""
