"""Read what is committed of the record: how routines stand, and their attempts."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.db import DatabaseError
from django.db.models import Max, Q
from django.utils.translation import gettext_noop

from once.databases import database, tables
from once.models import Attempt, Completion, State
from once.record import failed_items, queries, statements, states, wishes
from once.record.standing import BAD, HOLDING, Attempts, Record, Standing, by_completions, judge
from once.routines.base import Routine
from once.routines.names import TOMBSTONE
from once.routines.state import State as ScopeState

if TYPE_CHECKING:  # because most processes go through no batches
    from once.routines.batches import Progress


LOST_TABLES = gettext_noop(
    "The tables of once are missing, though their migration is recorded. Restore them, or run "
    "`manage.py migrate once zero --fake`, then `manage.py once run --migrate`."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextAttempt:
    """The part of the next attempt that only the holder of the lock can know."""

    record: Record
    #: The number to claim. A process that claims it second has lost the lock.
    number: int
    #: The idempotency key to carry on.
    key: str
    #: Attempts that still have the right to commit.
    predecessors: tuple[Attempt, ...] = ()
    #: True if nothing was recorded of the routine, and it is claimed only where that is still so.
    is_first: bool = False


def read(routines: Collection[Routine], *, thoroughly: bool = False) -> dict[str, Record]:
    """Return the record of each routine, by name.

    One indexed query for each of their databases; and only where something is open, or where it is
    asked for, a second one, for the attempts, and a third one, for the values of states.
    """
    found: dict[str, Record] = {}
    for using in sorted({routine.using for routine in routines}):
        here = [routine for routine in routines if routine.using == using]
        with database(using).statements():
            found |= _read(using, here, queries.attempted(using, here) if thoroughly else None)
    return found


def read_if_installed(
    routines: Sequence[Routine], *, thoroughly: bool = False
) -> dict[str, Record]:
    """Return the record of routines of one database; without tables, it is empty."""
    using = routines[0].using
    try:
        return read(routines, thoroughly=thoroughly)
    except DatabaseError as error:
        # Because a lost connection answers nothing more, what lost it is what to say.
        if database(using).is_lost(error) or is_installed(using):
            raise
        return {}


def undone(routines: Collection[Routine]) -> list[str]:
    """Return the names of those of some routines that are neither done nor superseded.

    A routine with failed items is not done for what is built on it.
    """
    records = read(routines)
    failed = failed_items.counts(routines)  # after: an item's row commits before the completion
    return [
        name
        for name, record in records.items()
        if not record.is_done or (name in failed and record.standing is Standing.DONE)
    ]


def held(
    using: str,
    routines: Iterable[Routine],
    stands: Mapping[str, Record],
    taken: Mapping[str, bool] | None = None,
) -> list[Routine]:
    """Return the routines that wait for a person's decision, or will once a process looks.

    A routine of the second kind may not be tried again, and its last attempt runs by the record
    though no process of once holds its lock: the process died, or was cut off from the database.
    ``taken`` is what ``Database.locked`` says of them, if that is known.
    """
    waiting, doubtful = [], []
    for routine in routines:
        record = stands[routine.name]
        if record.standing is Standing.HELD:
            waiting.append(routine)
        elif record.standing is Standing.OPEN and record.holds_if_lost:
            doubtful.append(routine)
    if doubtful and taken is None:
        taken = database(using).locked({routine.name for routine in doubtful})
    lost = [routine for routine in doubtful if not (taken or {}).get(routine.name)]
    again = read(lost) if lost else {}  # because an attempt may just have ended
    return waiting + [routine for routine in lost if again[routine.name].is_running]


def read_under_lock(routine: Routine) -> Record:
    """Return the record of a routine, attempts included. For the lock's session."""
    if not (routine.renamed_from or _is_known(routine)):
        return Record(standing=Standing.OPEN)
    # Before the completions: where no attempt runs any more, all that they completed is seen.
    attempts = queries.attempted(routine.using, [routine])
    return _read(routine.using, [routine], attempts)[routine.name]


def first_attempt(record: Record) -> NextAttempt:
    """Return what the next attempt is, if nothing is recorded of a routine now as little as before.

    Its claim finds that out, and needs no reading under the lock.
    """
    return NextAttempt(record=record, number=1, key=uuid.uuid4().hex, is_first=True)


def next_attempt(routine: Routine) -> NextAttempt:
    """Return what the next attempt would be. Call it in the session that holds the lock."""
    # First the last number, then the running attempts. Because a process that claims in between
    # takes that number, this claim fails. In the other order this claim would succeed, and the
    # attempt of that process would never be fenced.
    record = read_under_lock(routine)
    attempts = Attempt.objects.using(routine.using).filter(routine=routine.name)
    key: str | None = None
    running: tuple[Attempt, ...] = ()
    if record.own_number:
        same = attempts.filter(version=routine.version, scope_key=routine.scope_key)
        key = same.order_by("-number").values_list("key", flat=True).first()
    if record.has_running:
        running = tuple(attempts.filter(state=State.RUNNING).order_by("number"))
    return NextAttempt(
        record=record, number=record.number + 1, key=key or uuid.uuid4().hex, predecessors=running
    )


def _is_known(routine: Routine) -> bool:
    # As most are not, this saves queries that take longer to build than to answer.
    here = database(routine.using)
    question = f"{statements.known_to_record(here)} LIMIT 1"
    return bool(tables.ask(here.connection, question, [routine.name] * len(tables.OF_ROUTINES)))


def is_installed(using: str) -> bool:
    """True if the tables of the record exist in a database."""
    connection = database(using).connection
    with connection.cursor() as cursor:
        present = connection.introspection.table_names(cursor)
    return set(map(tables.name, tables.MODELS)) <= set(present)


def attempts(using: str, numbers: Mapping[str, int]) -> dict[str, Attempt]:
    """Return the attempts of these numbers that exist, by name of the routine."""
    rows = Attempt.objects.using(using).filter(routine__in=numbers)
    with database(using).statements():
        rows = rows.filter(number__in=set(numbers.values()))
        return {row.routine: row for row in rows if row.number == numbers[row.routine]}


def progress(attempt: Attempt) -> "Progress":
    """Return how far the attempts before this one came, once all of them are fenced."""
    from once.routines.batches import Progress

    same = {name: getattr(attempt, name) for name in ("routine", "version", "scope_key")}
    rows = Attempt.objects.using(attempt._state.db).filter(**same, number__lt=attempt.number)
    last = rows.exclude(cursor="").order_by("-number").first()
    if last is None:
        return Progress()
    return Progress(cursor=last.cursor, processed=last.processed, total=last.total)


def has_successor(attempt: Attempt) -> bool:
    """True if another process claimed the next attempt: it takes, or took, the right to commit."""
    later = Attempt.objects.using(attempt._state.db).filter(routine=attempt.routine)
    with database(str(attempt._state.db)).statements():
        return later.filter(number__gt=attempt.number).exists()


def last_failures(using: str, routines: Collection[Routine]) -> dict[str, Attempt]:
    """Return the last attempt that did not end well at each routine's completion, by name."""
    rows = (
        Attempt.objects.using(using)
        .filter(
            Q(state__in=BAD) | Q(state__in=HOLDING, retry=False),
            routine__in=[routine.name for routine in routines],
        )
        .values_list("routine", "version", "scope_key")
        .annotate(Max("number"))
    )
    with database(using).statements():
        last = {tuple(completion): number for *completion, number in rows}
    wanted = {each.name: (each.name, each.version, each.scope_key) for each in routines}
    return attempts(using, {name: last[key] for name, key in wanted.items() if key in last})


def recorded(using: str) -> dict[str, list[Completion]]:
    """Return the completions of each recorded routine, by name, the highest version last.

    Of a name that has a tombstone there are none.
    """
    found: dict[str, list[Completion]] = {}
    rows = Completion.objects.using(using).filter(version__lt=TOMBSTONE)
    with database(using).statements():
        for row in rows.order_by("version", "completed_at"):
            found.setdefault(row.routine, []).append(row)
    return found


def unknown(using: str, names: Collection[str]) -> set[str]:
    """Return the recorded names of none of these routines, by whatever name a release has them."""
    return {*recorded(using)} - {*queries.renamed(using, names).values()}


def _read(
    using: str, routines: list[Routine], attempts: dict[str, list[Attempts]] | None = None
) -> dict[str, Record]:
    """Read the completions, and the attempts of what is open where they are not known.

    Where they are known, it is asked as well whether a value that is done is an earlier one by now,
    since a later one began. Completions under an old name without a tombstone count: their effects
    exist.
    """
    wanted = [(routine.name, routine.version, routine.scope_key) for routine in routines]
    old = [name for routine in routines for name in routine.renamed_from]
    rows = queries.completed(using, wanted, old)
    buried = {name for name, version, _ in rows if version == TOMBSTONE}
    uncarried = {
        name: routine.name
        for routine in routines
        for name in routine.renamed_from
        if name not in buried
    }
    if uncarried:
        rows |= {
            (uncarried[name], version, key) for name, version, key in rows if name in uncarried
        }
    found = by_completions(wanted, rows)
    unsure = [each for each in routines if found[each.name].standing is Standing.OPEN]
    if attempts is None:
        attempts = queries.attempted(using, unsure) if unsure else {}
    else:
        unsure = [each for each in routines if found[each.name].standing is not Standing.SUPERSEDED]
    # After the attempts: where none of them runs any more, all values that acted are seen.
    of_state = [each for each in unsure if isinstance(each.scope, ScopeState)]
    earlier = states.earlier(using, of_state) if of_state else {}
    records = found | {
        each.name: judge(
            each,
            Standing.EARLIER if each.name in earlier else found[each.name].standing,
            attempts[each.name],
            is_overtaken=earlier.get(each.name, False),
        )
        for each in routines
        if each.name in attempts
    }
    for routine in routines if uncarried else ():
        record, names = records[routine.name], routine.renamed_from
        if record.standing is not Standing.SUPERSEDED:  # a newer release carries it over
            names = tuple(name for name in names if name in uncarried)
            records[routine.name] = replace(record, uncarried=names)
    # In an older release.
    renamed = {name for name, version, _ in wanted if name in buried and version < TOMBSTONE}
    for name in queries.unfinished(using, renamed) if renamed else ():
        records[name] = replace(records[name], is_overtaken=True)
    return _wished(using, unsure, records) if unsure else records


def _wished(using: str, unsure: list[Routine], records: dict[str, Record]) -> dict[str, Record]:
    """Return the same, by what people want of what is open: a pause, or a run without a delay."""
    undone = [name for name, each in records.items() if each.standing is Standing.OPEN]
    paused = wishes.paused(using, undone) if undone else set()
    records |= {name: replace(records[name], standing=Standing.PAUSED) for name in paused}
    delayed = [name for name in undone if name not in paused and records[name].retry_in]
    # Of what is done, a run means its failed items.
    delayed += [it.name for it in unsure if it.over and records[it.name].standing is Standing.DONE]
    for name in wishes.wanted(using, delayed) if delayed else ():
        records[name] = replace(records[name], is_wanted=True, retry_in=0.0, retry_at=None)
    return records
