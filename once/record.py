"""What the record says: how routines stand, and what was tried. Reads only.

Each statement sees what is committed.
"""

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db.models import Case, CharField, Count, Max, Q, When
from django.db.models.functions import Coalesce

from once import conf
from once.base import Routine
from once.databases import database
from once.models import DECISIONS, Attempt, Completion, Now, State

__all__ = [
    "Record",
    "Standing",
    "attempts",
    "is_abandoned",
    "is_held",
    "is_installed",
    "is_migrated",
    "last_attempts",
    "last_failure",
    "last_failures",
    "now",
    "read",
    "read_under_guard",
    "recorded",
]

#: Seconds that the delay between attempts at start-up doubles up to.
_RETRY_DELAY_CAP = 3600.0


class Standing(enum.Enum):
    """What the record says of a routine of this code, in one word."""

    OPEN = "open"
    DONE = "done"
    #: A higher version is recorded, or begun: this one never runs again.
    SUPERSEDED = "superseded"
    #: It may not be tried a second time, and was tried: a person decides.
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a database says of one routine of this code."""

    standing: Standing
    #: Superseded by a version that began and is not recorded: none is there to build on.
    is_overtaken: bool = False
    #: Number of the last attempt, at whatever version and scope key.
    number: int = 0
    #: Number of the last attempt at this very completion, and how many called the body.
    own_number: int = 0
    tries: int = 0
    #: How many attempts in a row, of this version or another, went without a word.
    lost_in_a_row: int = 0
    #: Whether the last attempt did not end, so that it runs or was lost; and whether any did not.
    is_running: bool = False
    has_running: bool = False
    #: Whether it is one that no other may follow by itself, unless it succeeds.
    holds_if_lost: bool = False
    #: Whether an attempt at this completion went through batches.
    is_batched: bool = False
    #: Seconds until starting servers may try again; 0 where they may.
    retry_in: float = 0.0
    #: When they may, by the database's clock, where that is to come.
    retry_at: datetime | None = None


_OPEN, _DONE, _SUPERSEDED = (
    Record(standing=standing) for standing in (Standing.OPEN, Standing.DONE, Standing.SUPERSEDED)
)


@dataclass(frozen=True, slots=True)
class _Attempts:
    """The attempts at one routine that have all this in common."""

    version: int
    #: Where it is that of a routine of this code.
    scope_key: str | None
    state: str
    retry: bool
    #: The last one's.
    number: int
    #: How many of them called a body.
    tries: int
    #: When the last one ended, or else began.
    moment: datetime
    #: The database's clock.
    now: datetime
    #: Not empty where batches were begun.
    cursor: str


def read(routines: Collection[Routine], *, thoroughly: bool = False) -> dict[str, Record]:
    """What is recorded of each routine, by name.

    One indexed query for each of their databases, and a second one, for the attempts, only where
    something is open, or where it is asked for.
    """
    found: dict[str, Record] = {}
    for using in sorted({routine.using for routine in routines}):
        here = [routine for routine in routines if routine.using == using]
        with database(using).statements():
            found |= _read(using, here, _attempted(using, here) if thoroughly else None)
    return found


def is_abandoned(routine: Routine, found: Record) -> bool:
    """Whether the last attempt at a routine runs by the record, and no process holds the guard.

    It died, or was cut off from the database: the next process takes over.
    """
    if not found.is_running or database(routine.using).holder(routine.name) is not None:
        return False
    return read([routine])[routine.name].is_running  # it may just have ended


def is_held(routine: Routine, found: Record) -> bool:
    """Whether a routine waits for a person's decision, or does as soon as anybody looks."""
    if found.standing is Standing.HELD:
        return True
    return found.holds_if_lost and is_abandoned(routine, found)


def read_under_guard(routine: Routine) -> Record:
    """What is recorded of a routine, its attempts in any case. For the guard's session."""
    if not _is_known(routine):
        return _OPEN
    # Before the completions: where no attempt runs any more, all that they completed is seen.
    attempts = _attempted(routine.using, [routine])
    return _read(routine.using, [routine], attempts)[routine.name]


def _is_known(routine: Routine) -> bool:
    # As most are not, this saves queries that take longer to build than to answer.
    with database(routine.using).connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM once_completion WHERE routine = %s UNION ALL "
            "SELECT 1 FROM once_attempt WHERE routine = %s LIMIT 1",
            [routine.name, routine.name],
        )
        return cursor.fetchone() is not None


def is_installed(using: str) -> bool:
    """Whether the tables of the record exist in a database."""
    connection = database(using).connection
    with connection.cursor() as cursor:
        present = connection.introspection.table_names(cursor)
    return {Attempt._meta.db_table, Completion._meta.db_table} <= set(present)


def is_migrated(using: str, name: str, digest: str) -> bool:
    """Whether a database was brought to the migrations of this digest."""
    with database(using).statements():
        return Completion.objects.using(using).filter(routine=name, scope_key=digest).exists()


def last_attempts(using: str) -> dict[str, Attempt]:
    """The last attempt at each routine that a database knows, by name."""
    rows = Attempt.objects.using(using).values_list("routine").annotate(Max("number"))
    with database(using).statements():
        numbers = dict(rows)
    return attempts(using, numbers)


def now(using: str) -> datetime:
    """The time by the clock of a database that knows an attempt."""
    with database(using).statements():
        time: datetime = Attempt.objects.using(using).values_list(Now(), flat=True)[0]
    return database(using).aware(time)


def attempts(using: str, numbers: Mapping[str, int]) -> dict[str, Attempt]:
    """Attempts by name of the routine, as many of them as there are of these numbers."""
    rows = Attempt.objects.using(using).filter(
        routine__in=numbers, number__in=set(numbers.values())
    )
    with database(using).statements():
        return {row.routine: row for row in rows if row.number == numbers[row.routine]}


def last_failure(routine: Routine) -> Attempt | None:
    """The last attempt at this completion that did not end well."""
    return last_failures(routine.using, [routine]).get(routine.name)


def last_failures(using: str, routines: Collection[Routine]) -> dict[str, Attempt]:
    """The last attempt at the completion of each of these that did not end well, by name."""
    rows = (
        Attempt.objects.using(using)
        .filter(
            Q(state__in=(State.FAILED, State.LOST, State.RUNNING))
            | Q(state=State.INTERRUPTED, retry=False),
            routine__in=[routine.name for routine in routines],
        )
        .values_list("routine", "version", "scope_key")
        .annotate(Max("number"))
    )
    with database(using).statements():
        last = {tuple(completion): number for *completion, number in rows}
    wanted = {one.name: (one.name, one.version, one.scope_key) for one in routines}
    return attempts(using, {name: last[one] for name, one in wanted.items() if one in last})


def recorded(using: str) -> dict[str, list[Completion]]:
    """The completions of each routine that a database knows, by name, the highest version last."""
    found: dict[str, list[Completion]] = {}
    with database(using).statements():
        for row in Completion.objects.using(using).order_by("version", "completed_at"):
            found.setdefault(row.routine, []).append(row)
    return found


def _read(
    using: str, routines: list[Routine], attempts: dict[str, list[_Attempts]] | None = None
) -> dict[str, Record]:
    """Read the completions, and the attempts of what is open where they are not known."""
    wanted = [(routine.name, routine.version, routine.scope_key) for routine in routines]
    rows = _completed(using, wanted)
    highest: dict[str, int] = {}
    for name, version, _ in rows:
        if version > highest.get(name, 0):
            highest[name] = version
    found: dict[str, Record] = {}
    for completion in wanted:
        name, version, _ = completion
        if highest.get(name, 0) > version:
            found[name] = _SUPERSEDED
        elif completion in rows:
            found[name] = _DONE
    unsure = routines
    if attempts is None:
        unsure = [routine for routine in routines if routine.name not in found]
        attempts = _attempted(using, unsure) if unsure else {}
    for routine in unsure:
        stands = found.get(routine.name, _OPEN).standing
        found[routine.name] = _of(routine, stands, attempts.get(routine.name, []))
    return found


def _completed(using: str, wanted: list[tuple[str, int, str]]) -> set[tuple[str, int, str | None]]:
    """The completions of the routines that are named in these, other scope keys as ``None``."""
    here = database(using)
    condition, values = here.among([name for name, _, _ in wanted])
    keys = sorted({scope_key for _, _, scope_key in wanted})
    columns = "routine, version, scope_key"
    if keys != [""]:
        # Each release, or state of files, has left a row: one answer for all that are not here.
        own = f"CASE WHEN scope_key IN ({', '.join(['%s'] * len(keys))}) THEN scope_key END"
        columns, values = f"DISTINCT routine, version, {own}", [*keys, *values]
    # Not through a queryset, which takes longer to build than the server to answer.
    sql = f"SELECT {columns} FROM once_completion WHERE routine {condition}"
    with here.connection.cursor() as cursor:
        cursor.execute(sql, values)
        return set(cursor.fetchall())


def _own_key(keys: set[str]) -> Case:
    """The scope key where it is one of these, else NULL."""
    return Case(When(scope_key__in=sorted(keys), then="scope_key"), output_field=CharField())


def _attempted(using: str, routines: Collection[Routine]) -> dict[str, list[_Attempts]]:
    # Grouped, so that a long history makes no long answer.
    rows = (
        Attempt.objects.using(using)
        .filter(routine__in=[routine.name for routine in routines])
        .annotate(own=_own_key({routine.scope_key for routine in routines}))
        .values_list("routine", "version", "own", "state", "retry")
        .annotate(
            Max("number"),
            tries=Count("pk", filter=~Q(trigger__in=DECISIONS)),
            moment=Max(Coalesce("finished_at", "started_at")),
            clock=Max(Now()),
            at=Max("cursor"),
        )
    )
    found: dict[str, list[_Attempts]] = {}
    here = database(using)
    for name, *values in rows:
        one = _Attempts(*values)
        one = replace(one, moment=here.aware(one.moment), now=here.aware(one.now))
        found.setdefault(name, []).append(one)
    return found


def _of(routine: Routine, standing: Standing, history: list[_Attempts]) -> Record:
    if not history:
        return Record(standing=standing)
    same = [one for one in history if _is_of(routine, one)]
    is_overtaken = False
    if standing is Standing.OPEN:
        is_overtaken = max(one.version for one in history) > routine.version
        if is_overtaken:
            standing = Standing.SUPERSEDED
        elif any(_holds(one) for one in same):
            standing = Standing.HELD
    last = max(history, key=lambda one: one.number)
    retry_in = _retry_in(routine, history) if same and standing is Standing.OPEN else 0.0
    return Record(
        standing=standing,
        is_overtaken=is_overtaken,
        number=last.number,
        own_number=max((one.number for one in same), default=0),
        tries=sum(one.tries for one in same),
        lost_in_a_row=_in_a_row(
            history, last.number, lambda one: one.state in (State.LOST, State.RUNNING)
        ),
        is_running=last.state == State.RUNNING,
        has_running=any(one.state == State.RUNNING for one in history),
        holds_if_lost=last.state == State.RUNNING and not last.retry and _is_of(routine, last),
        is_batched=any(one.cursor for one in same),
        retry_in=retry_in,
        retry_at=last.now + timedelta(seconds=retry_in) if retry_in else None,
    )


def _holds(one: _Attempts) -> bool:
    # While one runs it is not known how it ends: a successor finds that out under the guard.
    return not one.retry and one.state not in (State.SUCCEEDED, State.RUNNING)


def _is_of(routine: Routine, one: _Attempts) -> bool:
    return (one.version, one.scope_key) == (routine.version, routine.scope_key)


def _in_a_row(
    history: Iterable[_Attempts], last: int, is_meant: Callable[[_Attempts], bool]
) -> int:
    """How many attempts up to the last one are meant, and none between that is not."""
    return last - max(
        (one.number for one in history if one.number <= last and not is_meant(one)), default=0
    )


def _retry_in(routine: Routine, history: list[_Attempts]) -> float:
    """Seconds that starting servers still wait, after attempts at this that did not end well."""
    last = max((one for one in history if _is_of(routine, one)), key=lambda one: one.number)
    bad = (State.FAILED, State.LOST, State.RUNNING)
    if last.state not in bad:
        return 0.0
    in_a_row = _in_a_row(
        history, last.number, lambda one: _is_of(routine, one) and one.state in bad
    )
    if last.state != State.FAILED:
        in_a_row -= 1  # the first that ended without a word: a deploy, a node
    if not in_a_row:
        return 0.0
    delay = conf.retry_delay()
    delay = min(delay * 2.0 ** min(in_a_row - 1, 20), max(delay, _RETRY_DELAY_CAP))
    passed: float = (last.now - last.moment).total_seconds()
    return max(0.0, delay - passed)
