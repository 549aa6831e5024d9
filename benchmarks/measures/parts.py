"""Parts: what each part of the protocol costs at least, in raw SQL on Django's own connections.

So much of the time of a run is the price of a history, of fencing and of a lock that its server
evicts, whoever writes it; the rest is ours.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from benchmarks.figures import FLOOR, Figure, Row
from benchmarks.project import work
from benchmarks.stage import Stage
from benchmarks.timing import interleaved, seconds

__all__ = ["figures"]

COUNT = 100

#: Each of them on top of those before it.
PARTS = {
    "claim": "and a claim that is committed before",
    "end": "and its end",
    "savepoint": "and a savepoint around the body",
    "locks": "and the work lock and the attempt's row",
    "lock": "and a lock in a session of its own",
}

_CLAIM = """BEGIN; INSERT INTO once_attempt (routine, number, version, scope_key, key, state, retry,
    trigger, "user", reason, host, pid, release, error, cursor, processed, resumed, throttled)
    VALUES (%s, 1, 1, '', '', 'running', true, '', '', '', '', 0, '', '', '', 0, 0, ''); COMMIT"""
_END = """UPDATE once_attempt SET state = 'succeeded', finished_at = now()
    WHERE routine = %s AND state = 'running'"""
_ROW = "SELECT number FROM once_attempt WHERE routine = %s AND state = 'running' FOR UPDATE"
_LOCK = """ROLLBACK; BEGIN; SET LOCAL idle_in_transaction_session_timeout = '15s';
    SELECT pg_try_advisory_xact_lock(1, hashtext(%s))"""
_LAST = """SELECT 1 FROM once_completion WHERE routine = %s
    UNION ALL SELECT 1 FROM once_attempt WHERE routine = %s"""


def figures(stage: Stage) -> Iterator[Figure]:
    """Time for as many routines as another measure runs, with ever more parts."""
    names = list(PARTS)
    with closing(connection.copy()) as lock:
        cases = {FLOOR: partial(_anew, frozenset(), lock)} | {
            name: partial(_anew, frozenset(names[: number + 1]), lock)
            for number, name in enumerate(names)
        }
        interleaved(cases, 1)  # what happens at a first call only
        found = interleaved(cases, stage.times(9))
        _ask(lock, "ROLLBACK")
    for name, title in PARTS.items():
        row = Row(measure="parts", title=f"{COUNT} bare transactions {title}")
        yield Figure(row=row, contender=FLOOR, values=found[FLOOR])
        yield Figure(row=row, contender="once", values=found[name])


def _anew(parts: frozenset[str], lock: BaseDatabaseWrapper) -> float:
    _ask(lock, "ROLLBACK")
    work.truncate()
    return seconds(partial(_run, parts, lock))


def _run(parts: frozenset[str], lock: BaseDatabaseWrapper) -> None:
    for name in work.names(COUNT):
        if "lock" in parts:
            _ask(lock, _LOCK, name)
            _ask(lock, _LAST, name, name)
        if "claim" in parts:
            _ask(connection, _CLAIM, name)
        with transaction.atomic():
            _work(parts, name)


def _work(parts: frozenset[str], name: str) -> None:
    if "locks" in parts:
        _ask(connection, "SELECT pg_try_advisory_xact_lock(2, hashtext(%s))", name)
        _ask(connection, _ROW, name)
    if "savepoint" in parts:
        _ask(connection, "SAVEPOINT body")
    work.effect(name)
    if "savepoint" in parts:
        _ask(connection, "RELEASE SAVEPOINT body")
    _ask(
        connection,
        "INSERT INTO once_completion (routine, version, scope_key) VALUES (%s, 1, '')",
        name,
    )
    if "end" in parts:
        _ask(connection, _END, name)


def _ask(here: BaseDatabaseWrapper, sql: str, *params: str) -> None:
    with here.cursor() as cursor:
        cursor.execute(sql, params or None)
