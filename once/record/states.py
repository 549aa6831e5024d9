"""The values of states: which are earlier ones, and how a completion leaves one for the next."""

from collections.abc import Collection

from django.db.models import Case, CharField, Exists, Max, OuterRef, When

from once.exceptions import AttemptLost
from once.models import Anchor, Attempt, Completion
from once.routines.base import Routine
from once.routines.state import PREFIX


def earlier(using: str, routines: Collection[Routine]) -> dict[str, bool]:
    """Return the routines with an earlier value, by name: True if no later one is recorded.

    A value is earlier if it acted, and another one of the same version since. The anchors tell, of
    which each value has one, at its last attempt that was let to act.
    """
    wanted = {each.name: (each.name, each.version, each.scope_key) for each in routines}
    same = {name: OuterRef(name) for name in ("routine", "version", "scope_key")}
    is_recorded = Exists(Completion.objects.using(using).filter(**same))
    keys = {scope_key for _, _, scope_key in wanted.values()}
    rows = (
        Anchor.objects.using(using)
        .filter(routine__in=wanted, scope_key__startswith=PREFIX)
        .annotate(own=Case(When(scope_key__in=keys, then="scope_key"), output_field=CharField()))
        .values_list("routine", "version", "own")
        .annotate(Max("number"), recorded=Max("number", filter=is_recorded))
    )
    acted = {tuple(value): (last, recorded or 0) for *value, last, recorded in rows}
    found: dict[str, bool] = {}
    for name, own in wanted.items():
        mine, _ = acted.get(own, (0, 0))
        others = [rest for value, rest in acted.items() if value[:2] == own[:2] and value != own]
        if mine and any(last > mine for last, _ in others):
            found[name] = not any(recorded > mine for _, recorded in others)
    return found


def leave(attempt: Attempt) -> None:
    """Delete the completion of the value before, in the work transaction that inserts the next one.

    The transaction has locked the row of its attempt, and every predecessor is fenced. So no other
    session may commit a completion of the routine, and a state has one at a time.
    """
    if not attempt.scope_key.startswith(PREFIX):
        return
    rows = Completion.objects.using(attempt._state.db).filter(
        routine=attempt.routine, version=attempt.version
    )
    before = list(rows.filter(scope_key__startswith=PREFIX).values_list("scope_key", flat=True))
    # Each by its whole key: MySQL locks no gap for a row that is there.
    for key in before:
        if not rows.filter(scope_key=key)._raw_delete(attempt._state.db):
            raise AttemptLost(f"Another session moved the completion of {attempt} meanwhile.")
