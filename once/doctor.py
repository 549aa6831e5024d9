"""Proves of a deployment what the promise stands on, by the protocol's own means and sessions.

Nothing of it stays in a database, nothing waits without a deadline, and routines run on meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, transaction

from once import ledger, migrate, record
from once.databases import database
from once.exceptions import OnceError
from once.findings import Finding, Level
from once.proofs import DEADLINE, Proofs
from once.registry import Registry
from once.status import RoutineState, Status, statuses
from once.text import one_line

__all__ = ["SCHEMA", "examine", "to_json", "used"]

SCHEMA = 1

#: Seconds that clocks may be apart.
_SKEW = timedelta(seconds=5)


def used(registry: Registry) -> list[str]:
    """Aliases of the databases that have routines; ``"default"`` where none has."""
    return sorted({one.using for one in registry.recorded}) or [DEFAULT_DB_ALIAS]


def examine(registry: Registry, aliases: Iterable[str]) -> Iterator[Finding]:
    """Examine databases one after the other, and tell what is found as it is found.

    Args:
        registry: the routines of this code.
        aliases: of the databases.

    """
    for using in aliases:
        try:
            here = database(using)
        except ImproperlyConfigured as error:
            yield Finding(id="server", database=using, level=Level.FAULT, message=str(error))
        else:
            yield from _Examination(here=here, registry=registry).findings()


def to_json(found: Iterable[Finding]) -> dict[str, Any]:
    """The one object that ``--json`` prints; its keys are a contract."""
    found = list(found)
    return {
        "schema": SCHEMA,
        "healthy": all(finding.level is not Level.FAULT for finding in found),
        "counts": dict(Counter(str(finding.level) for finding in found)),
        "findings": [asdict(finding) for finding in found],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examination(Proofs):
    """One look at one database, and at the record in it."""

    registry: Registry

    def findings(self) -> Iterator[Finding]:
        """Everything that is found, as it is found."""
        for part in (self._server, self._tables, self.pool, self.exclusion):
            found = self._survive(part)
            yield from found
            if any(finding.level is Level.FAULT for finding in found):
                return  # all that follows presupposes this
        for part in (self.eviction, self.fencing, self._privileges, self._routines):
            yield from self._survive(part)

    def _survive(self, part: Callable[[], list[Finding]]) -> list[Finding]:
        """What a part finds, or what keeps it from finding anything."""
        name = part.__name__.removeprefix("_")
        try:
            return part()
        except TimeoutError:
            message = f"No answer within {DEADLINE:.0f} s."
            return [self.fault(name, message, "See what keeps the server, or a pooler, busy.")]
        except OnceError as error:
            return [self.fault(name, str(error))]
        except Error as error:
            if self.here.is_locked(error) or self.here.is_conflict(error):
                message = f"Not examined, for another session is in the way: {one_line(error)}"
                return [self.warning(name, message, "Run this again when that is done.")]
            return [self.fault(name, one_line(error), self.advice(error))]

    def _server(self) -> list[Finding]:
        return self.ask(lambda: list(self.here.examine()))

    def _tables(self) -> list[Finding]:
        using = self.here.using
        if not self.ask(lambda: record.is_installed(using)):
            option = "" if using == DEFAULT_DB_ALIAS else f" --database {using}"
            return [
                self.fault(
                    "tables",
                    "The tables of once are missing, or hidden from this user.",
                    f"Run `manage.py migrate once{option}`, then this again.",
                )
            ]
        if unapplied := self.ask(lambda: migrate.unapplied(using)):
            return [
                self.warning(
                    "tables",
                    f"Unapplied migrations, until which routines are blocked: "
                    f"{', '.join(unapplied)}.",
                    "Run `manage.py once run --migrate`.",
                )
            ]
        return [self.ok("tables", "The tables are there, and every migration is applied.")]

    def _privileges(self) -> list[Finding]:
        """Whether the record can be written, and how late it is there."""
        before, clock, after, errors = self.ask(self._rehearse)
        lacks: dict[str, list[str]] = {}
        for statement, error in errors.items():
            lacks.setdefault(one_line(error), []).append(statement)
        found = [
            self.fault(
                "privileges",
                f"{', '.join(statements)}: {why}",
                self.advice(errors[statements[0]]) or "See what keeps it, and run this again.",
            )
            for why, statements in lacks.items()
        ]
        if not found:
            message = "The record can be read and written (tried, and rolled back)."
            found.append(self.ok("privileges", message))
        if clock is not None and self.here.is_server:
            found.append(self._clock(before, self.here.aware(clock), after))
        return found

    def _rehearse(
        self,
    ) -> tuple[datetime, datetime | None, datetime, dict[str, DatabaseError]]:
        with self.here.work():
            self.here.limit_statements(1.0)
            before = _time()
            clock, errors = ledger.rehearse(self.here.using, self.name)
            after = _time()
            transaction.set_rollback(True, using=self.here.using)
        return before, clock, after, errors

    def _clock(self, before: datetime, clock: datetime, after: datetime) -> Finding:
        for how, apart in (("behind", clock - after), ("ahead of", before - clock)):
            if apart > _SKEW:
                return self.warning(
                    "clock",
                    f"This machine's clock is {apart.total_seconds():,.0f} s {how} the database's. "
                    "Nothing of the protocol depends on it, but times will look odd.",
                    "Have both set by NTP.",
                )
        return self.ok("clock", "This machine's clock and the database's agree.")

    def _routines(self) -> list[Finding]:
        """What waits for somebody."""
        using = self.here.using
        shown = self.ask(lambda: statuses(self.registry, databases=[using]))
        shown = [one for one in shown if one.database == using]
        found = [finding for one in shown for finding in self._of_routine(one)]
        if unknown := [one.name for one in shown if one.state is RoutineState.UNKNOWN]:
            message = f"Recorded, and not in this code: {', '.join(unknown)}."
            found.append(self.ok("unknown", message))
        return found or [self.ok("routines", "None was left half-way, and none is held.")]

    def _of_routine(self, one: Status) -> Iterator[Finding]:
        if one.state is RoutineState.HELD:
            yield self.warning("held", f"{one.name} is held.", one.message or "")
        elif one.state is RoutineState.PENDING and one.message:
            message = f"{one.name} was left half-way: nobody holds its guard."
            yield self.warning("orphan", message, one.message)


def _time() -> datetime:
    return datetime.now(UTC)
