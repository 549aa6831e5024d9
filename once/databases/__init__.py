"""What the protocol needs from a database, one class for each kind."""

from once.databases.base import PATIENCE, SUPPORTED, Database, database

__all__ = ["PATIENCE", "SUPPORTED", "Database", "database"]
