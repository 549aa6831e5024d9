"""The record: what is read of the tables, what that means, and what is written to them.

To be read in this order: ``standing`` (what earlier attempts mean), ``queries`` and ``history``
(what is read), ``recorder`` (what is written,
by ``statements``), ``wishes`` and ``failed_items`` (of long work), ``workers`` (which look for it),
``states`` (which value of a state is an earlier one), ``renames``, ``anchors`` (what pruning
leaves), ``gates`` (what unapplied migrations mean) and ``migrated``. Nothing else writes to the
tables.
"""
