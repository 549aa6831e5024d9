"""The doctor's questions to a SQLite."""

from django.db.backends.base.base import BaseDatabaseWrapper

from once.doctor.deployment import Deployment
from once.doctor.findings import Finding

__all__ = ["examine", "place"]


def place(connection: BaseDatabaseWrapper) -> str:
    """Return the database's file."""
    return str(connection.settings_dict["NAME"])


def examine(deployment: Deployment) -> list[Finding]:
    """Return the version."""
    return [deployment.server()]
