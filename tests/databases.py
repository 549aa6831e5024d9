"""Databases on the server of the tests."""

import psycopg

from tests.servers import database_url

__all__ = ["create_database", "drop_database"]


def create_database(name: str, template: str = "template1") -> None:
    """Create a database, instead of the one that has its name."""
    drop_database(name)
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE {template}")


def drop_database(name: str) -> None:
    """Drop a database, in use or not."""
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
