"""The record: what is read of the tables, what that means, and what is written to them.

To be read in this order: ``standing`` (what earlier attempts mean), ``queries`` and ``history``
(what is read), ``recorder`` (what is written), ``states`` (which value of a state is an earlier
one), ``anchors`` (what pruning leaves) and ``gates`` (what unapplied migrations mean). Nothing else
writes to the tables.
"""
