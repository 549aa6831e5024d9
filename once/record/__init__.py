"""The record: what is read of the tables, what that means, and what is written to them.

To be read in this order: ``standing`` (what earlier attempts mean), ``queries`` and ``history``
(what is read), ``recorder`` (what is written), ``anchors`` (what pruning leaves) and ``gates``
(what unapplied migrations mean). Nothing else writes to the tables.
"""
