"""What the protocol needs from a database, one class for each kind."""

from once.databases.base import SUPPORTED, Database, database

__all__ = ["SUPPORTED", "Database", "database"]
