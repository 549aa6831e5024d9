"""A class for each kind of database, with the face that the protocol needs.

To be read in this order: ``lock`` and ``base`` (the two faces), ``transactions`` (the work's),
``sqlite`` (a kind without a server), ``servers`` and ``timeouts`` (connections to a server),
``sessions``, ``standby`` and ``session_lock`` (a lock that lives in a session), and for each server
its kind and its lock; PostgreSQL's ``messages``. The rest is small, and explains itself.
"""

from once.databases.base import PATIENCE, Database
from once.databases.kinds import SUPPORTED, database, is_supported, of_kind
from once.databases.transactions import discard, put_to_rest, refuse_left_open

__all__ = [
    "PATIENCE",
    "SUPPORTED",
    "Database",
    "database",
    "discard",
    "is_supported",
    "of_kind",
    "put_to_rest",
    "refuse_left_open",
]
