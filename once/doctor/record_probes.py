"""Probes of the record: that it is there, can be written, and shows no routine left half-way."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, models, transaction

from once import conf
from once.databases import unapplied
from once.doctor import mysql, postgresql
from once.doctor.deployment import Deployment, Finding
from once.doctor.lock_probes import too_few
from once.models import Anchor, Attempt, Completion, Now, Trigger
from once.record import history
from once.record.gates import behind
from once.record.standing import DOUBLINGS
from once.status.state import RoutineState, Status
from once.status.survey import statuses
from once.text import one_line

#: Questions to a server, by vendor.
_QUESTIONS = {"mysql": mysql.examine, "postgresql": postgresql.examine}

#: Seconds that clocks may be apart.
_SKEW = timedelta(seconds=5)


def server(deployment: Deployment) -> Iterator[Finding]:
    """See what the server is, and that the session's settings fit."""

    def examine() -> list[Finding]:
        connection = deployment.database.connection
        connection.ensure_connection()
        questions = _QUESTIONS.get(connection.vendor)
        return [*questions(deployment)] if questions else [deployment.server()]

    yield from deployment.ask(examine)


def tables(deployment: Deployment) -> Iterator[Finding]:
    """See that the tables are there, and that no migration is missing."""
    using = deployment.database.using
    if not deployment.ask(lambda: history.is_installed(using)):
        option = "" if using == DEFAULT_DB_ALIAS else f" --database {using}"
        message = "The tables of once are missing, or hidden from this user."
        hint = f"Run `manage.py migrate once{option}`, then this again."
        yield deployment.fault("tables", message, hint)
    elif missing := deployment.ask(lambda: unapplied.names(using)):
        message = f"Unapplied migrations, until which routines are blocked: {', '.join(missing)}."
        yield deployment.warning("tables", message, "Run `manage.py once run --migrate`.")
    else:
        yield deployment.ok("tables", "The tables are there, and every migration is applied.")


def gates(deployment: Deployment) -> Iterator[Finding]:
    """See that a migration which is ahead has the connections to have its routine completed."""
    database = deployment.database
    ahead = deployment.ask(lambda: behind(database.using).gates) if database.is_server else {}
    if ahead:
        well = f"A migration can wait for its routine: {', '.join(ahead)}."
        yield too_few(deployment, "gates", locks=2) or deployment.ok("gates", well)


def privileges(deployment: Deployment) -> Iterator[Finding]:
    """See that the record can be written, and how late it is there."""
    database = deployment.database

    def work() -> tuple[datetime, datetime | None, datetime, dict[str, DatabaseError]]:
        with database.work():
            database.limit_statements(1.0)
            before = _time()
            clock, errors = try_statements(database.using, deployment.name)
            after = _time()
            transaction.set_rollback(True, using=database.using)
        return before, clock, after, errors

    before, clock, after, errors = deployment.ask(work)
    refused: dict[str, list[str]] = {}
    for statement, error in errors.items():
        refused.setdefault(one_line(error), []).append(statement)
    for why, statements in refused.items():
        hint = deployment.advice(errors[statements[0]]) or "See what keeps it, and run this again."
        yield deployment.fault("privileges", f"{', '.join(statements)}: {why}", hint)
    if not refused:
        message = "The record can be read and written (tried, and rolled back)."
        yield deployment.ok("privileges", message)
    if clock is not None and database.is_server:
        yield _clock(deployment, before, database.aware(clock), after)


def _clock(deployment: Deployment, before: datetime, clock: datetime, after: datetime) -> Finding:
    for how, apart in (("behind", clock - after), ("ahead of", before - clock)):
        if apart > _SKEW:
            return deployment.warning(
                "clock",
                f"This machine's clock is {apart.total_seconds():,.0f} s {how} the database's. "
                "Nothing of the protocol depends on it, but times will look odd.",
                "Have both set by NTP.",
            )
    return deployment.ok("clock", "This machine's clock and the database's agree.")


def try_statements(using: str, name: str) -> tuple[datetime | None, dict[str, DatabaseError]]:
    """Do to each table all that is ever done to it, in a transaction that is to be rolled back.

    No signal of a model is sent.

    Returns:
        The database's time, where it could be had, and by statement the error that it met.

    """
    times: list[datetime] = []
    errors: dict[str, DatabaseError] = {}

    def attempt(verb: str, model: type[models.Model], statement: Callable[[], object]) -> None:
        try:
            with transaction.atomic(using=using):
                statement()
        except DatabaseError as error:
            errors[f"{verb} on {model._meta.db_table}"] = error

    meant: dict[type[models.Model], models.QuerySet[Any]] = {
        model: model._default_manager.using(using).filter(routine=name)
        for model in (Attempt, Completion, Anchor)
    }
    for model, rows in meant.items():
        row = model(routine=name, version=1)
        if isinstance(row, Attempt):
            row.number, row.trigger, row.pid = 1, Trigger.TEST, 0
        elif isinstance(row, Anchor):
            row.number = 1
            row.attempt_id = meant[Attempt].values_list("pk", flat=True).first() or 0
        attempt("INSERT", model, partial(rows.bulk_create, [row]))
        attempt("SELECT", model, partial(times.extend, rows.values_list(Now(), flat=True)))
        attempt("UPDATE", model, partial(rows.update, version=1))
    for model, rows in reversed(meant.items()):
        attempt("DELETE", model, partial(rows._raw_delete, using))
    return next(iter(times), None), errors


def routines(deployment: Deployment) -> Iterator[Finding]:
    """See which routines wait for a person."""
    using, registry = deployment.database.using, deployment.registry
    everywhere = deployment.ask(lambda: statuses(registry, databases=[using]))
    mine = [status for status in everywhere if status.database == using]
    recorded = [routine for routine in registry.recorded if routine.using == using]
    records = deployment.ask(lambda: history.read(recorded))
    unknown = [status.name for status in mine if status.state is RoutineState.UNKNOWN]
    findings: list[Finding] = []
    for status in mine:
        lost = records[status.name].lost_in_a_row if status.name in records else 0
        findings += _of_routine(deployment, status, lost)
    if unknown:
        message = f"Recorded, and not in this code: {', '.join(unknown)}."
        findings.append(deployment.ok("unknown", message))
    if not findings:
        yield deployment.ok("routines", "None was left half-way, and none is held.")
    yield from findings


def _of_routine(deployment: Deployment, status: Status, lost: int) -> Iterator[Finding]:
    name, state, message = status.name, status.state, status.message or ""
    lost -= state is RoutineState.RUNNING  # the record counts the attempt that may yet succeed
    if lost >= DOUBLINGS:
        yield _starved(deployment, name, lost)
    if state is RoutineState.HELD:
        yield deployment.warning("held", f"{name} is held.", message)
    elif message.startswith("Its lock is taken"):
        yield deployment.warning("lock", f"{name} is {state}.", message)
    elif state is RoutineState.PENDING and status.is_cut_off:
        problem = f"{name} was left half-way: no process holds its lock."
        yield deployment.warning("orphan", problem, message)


def _starved(deployment: Deployment, name: str, lost: int) -> Finding:
    usual = conf.liveness_timeout()
    return deployment.warning(
        "lost",
        f"The last {lost} attempts at {name} were lost in a row: their processes died, or gave "
        f"no sign of life for too long. A next attempt has {usual * 2**DOUBLINGS:g} s without "
        "a sign of life, and never more.",
        f"Raise ONCE_LIVENESS_TIMEOUT, now {usual:g} s, above the longest stretch in which its "
        "body lets no other thread or greenlet run; or call code there that releases the GIL, "
        "or yields to gevent's hub. Where its processes died, see what ends them.",
    )


def _time() -> datetime:
    return datetime.now(UTC)
