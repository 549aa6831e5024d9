"""A class for each kind of database, with the face that the protocol needs."""

from once.databases.base import PATIENCE, SUPPORTED, Database, database
from once.databases.transactions import discard, put_to_rest, refuse_left_open

__all__ = [
    "PATIENCE",
    "SUPPORTED",
    "Database",
    "database",
    "discard",
    "put_to_rest",
    "refuse_left_open",
]
