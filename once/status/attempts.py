"""The history of a routine: its attempts, and what persons decided about it, the latest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from once.databases import database
from once.models import DECISIONS, Attempt
from once.status import text
from once.text import headline

__all__ = ["PastAttempt", "last", "to_json"]


@dataclass(frozen=True)
class PastAttempt:
    """An attempt, or a person's decision, in the history of a routine."""

    attempt: Attempt

    @property
    def is_decision(self) -> bool:
        return self.attempt.trigger in DECISIONS

    @property
    def started_at(self) -> datetime:
        return self._aware(self.attempt.started_at)

    @property
    def finished_at(self) -> datetime | None:
        return self._aware(self.attempt.finished_at) if self.attempt.finished_at else None

    @property
    def began(self) -> str:
        return text.moment(self.started_at)

    @property
    def ended(self) -> str:
        return text.moment(self.finished_at)

    @property
    def lasted(self) -> str:
        if self.is_decision or self.attempt.finished_at is None:
            return ""
        seconds = (self.attempt.finished_at - self.attempt.started_at).total_seconds()
        return text.duration(max(0.0, seconds))

    @property
    def error_line(self) -> str:
        return headline(self.attempt.error)

    def _aware(self, when: datetime) -> datetime:
        return database(self.attempt._state.db or DEFAULT_DB_ALIAS).aware(when)


def last(using: str, name: str, count: int) -> list[Attempt]:
    """Return the last attempts at a routine in one database, the latest first.

    Raises:
        django.db.Error: the database cannot be read, or has no tables of this package.

    """
    attempts = Attempt.objects.using(using).filter(routine=name).order_by("-number")
    with database(using).reading(), database(using).statements():
        return list(attempts[:count])


def to_json(using: str, name: str, attempts: Sequence[PastAttempt]) -> dict[str, Any]:
    """Return a routine as ``once history --json`` prints it; its keys are a contract."""
    return {
        "name": name,
        "database": using,
        "attempts": [
            {
                "number": each.attempt.number,
                "version": each.attempt.version,
                "state": each.attempt.state,
                "trigger": each.attempt.trigger,
                "user": each.attempt.user or None,
                "reason": each.attempt.reason or None,
                "started_at": each.started_at,
                "finished_at": each.finished_at,
                "host": each.attempt.host or None,
                "pid": each.attempt.pid,
                "release": each.attempt.release or None,
                "key": each.attempt.key,
                "processed": each.attempt.processed,
                "total": each.attempt.total,
                "error": each.attempt.error or None,
            }
            for each in attempts
        ],
    }
