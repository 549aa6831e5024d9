"""Ask the tables about many routines at once: what is completed, and the attempts in groups."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from django.db.models import Case, CharField, Count, Exists, Max, OuterRef, Q, When
from django.db.models.functions import Coalesce
from django.db.models.lookups import LessThanOrEqual

from once.databases import database, tables
from once.models import DECISIONS, Anchor, Attempt, Completion, Now, State, Trigger
from once.record.standing import Attempts
from once.routines.base import Routine
from once.routines.names import TOMBSTONE

#: Renames of one routine that are followed.
_RENAMES = 20


def completed(
    using: str, wanted: list[tuple[str, int, str]], old: Sequence[str] = ()
) -> set[tuple[str, int, str | None]]:
    """Return the completions of the wanted routines, and of old names.

    A scope key that is not wanted is ``None``.
    """
    here = database(using)
    condition, values = here.among([name for name, _, _ in wanted] + [*old])
    keys = sorted({scope_key for _, _, scope_key in wanted})
    columns = "routine, version, scope_key"
    if keys != [""]:
        # Each release, or state of files, has left a row: one answer for all that are not here.
        own = f"CASE WHEN scope_key IN ({', '.join(['%s'] * len(keys))}) THEN scope_key END"
        columns, values = f"DISTINCT routine, version, {own}", [*keys, *values]
    # Not through a queryset, which takes longer to build than the server to answer.
    connection = here.connection
    table = tables.quoted(connection, "completion")
    sql = f"SELECT {columns} FROM {table} WHERE routine {condition}"
    return {*tables.ask(connection, sql, values)}


def attempted(using: str, routines: Collection[Routine]) -> dict[str, list[Attempts]]:
    """Return groups of attempts that have much in common, by the name of their routine."""
    here, names = database(using), [routine.name for routine in routines]
    keys = sorted({routine.scope_key for routine in routines})
    # Because the clock may have been set back, a time that lies ahead of it says nothing.
    moment = Coalesce("finished_at", "started_at")
    is_past = Q(LessThanOrEqual(moment, Now()))
    # Grouped, so that a long history makes no long answer.
    rows = (
        Attempt.objects.using(using)
        .filter(routine__in=names)
        .annotate(own=Case(When(scope_key__in=keys, then="scope_key"), output_field=CharField()))
        .values_list("routine", "version", "own", "state", "retry")
        .annotate(
            Max("number"),
            tries=Count("pk", filter=~Q(trigger__in=DECISIONS)),
            moment=Max(moment, filter=is_past),
            clock=Max(Now()),
            at=Max("cursor"),
        )
    )
    found: dict[str, list[Attempts]] = {}
    for name, *values in rows:
        row = Attempts(*values)
        row = replace(row, moment=row.moment and here.aware(row.moment), now=here.aware(row.now))
        found.setdefault(name, []).append(row)
    if not here.is_server:
        for name, gone in _gone(using, names):
            found.setdefault(name, []).append(gone)
    return found


def _gone(using: str, names: list[str]) -> Iterator[tuple[str, Attempts]]:
    """Yield anchored attempts that were deleted, as lost and held."""
    present = Exists(Attempt.objects.using(using).filter(pk=OuterRef("attempt_id")))
    anchors = Anchor.objects.using(using).filter(~present, routine__in=names)
    for anchor in anchors.annotate(now=Now()):
        now = database(using).aware(anchor.now)
        yield (
            anchor.routine,
            Attempts(
                version=anchor.version,
                scope_key=anchor.scope_key,
                state=State.LOST,
                retry=False,
                number=anchor.number,
                tries=0,
                moment=now,
                now=now,
                cursor="",
                is_gone=True,
            ),
        )


def renamed(using: str, names: Iterable[str]) -> dict[str, str]:
    """Return the present name for each of these old names that has a tombstone."""
    rows = Attempt.objects.using(using).filter(
        version=TOMBSTONE, trigger=Trigger.RENAME, state=State.SUCCEEDED
    )
    found = dict.fromkeys(names, "")
    asked = {*found}
    with database(using).statements():
        for _ in range(_RENAMES):
            steps = rows.filter(routine__in=asked).values_list("routine", "reason")
            to = {name: reason.removeprefix("to ") for name, reason in steps}
            found = {name: to.get(at or name, at) for name, at in found.items()}
            asked = {*to.values()}
            if not asked:
                break
    return {name: at for name, at in found.items() if at}


def unfinished(using: str, names: Collection[str]) -> set[str]:
    """Return those old names whose routine is not recorded as done under its present name."""
    present = renamed(using, names)
    done = Completion.objects.using(using).filter(routine__in={*present.values()})
    with database(using).statements():
        recorded = {*done.exclude(version=TOMBSTONE).values_list("routine", flat=True)}
    return {name for name in names if present.get(name) not in recorded}
