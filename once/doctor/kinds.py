"""The doctor's module for each kind of database."""

from collections.abc import Iterable
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

from once.doctor import mysql, postgresql, sqlite
from once.doctor.deployment import Deployment
from once.doctor.findings import Finding

__all__ = ["kind"]


class Kind(Protocol):
    """A module for a kind of database."""

    def place(self, connection: BaseDatabaseWrapper) -> str: ...
    def examine(self, deployment: Deployment) -> Iterable[Finding]: ...


_KINDS: dict[str, Kind] = {"mysql": mysql, "postgresql": postgresql, "sqlite": sqlite}


def kind(connection: BaseDatabaseWrapper) -> Kind:
    """Return the module for the kind of a connection's database."""
    return _KINDS[connection.vendor]
