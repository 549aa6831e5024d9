"""Keep the rows of the history that must stay, and prune the rest."""

from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Subquery

from once.databases import database
from once.databases.messages import together
from once.models import Anchor, Attempt, Completion, FailedItem, Now, State, Wish
from once.record import recorder, statements
from once.routines.state import PREFIX

#: Rows that one statement deletes, because it holds their locks until it ends.
_CHUNK = 1000


def move(attempt: Attempt) -> None:
    """Move the anchor to an attempt, before its body is called.

    An attempt may act only once its predecessors are fenced. Until then the anchor stays at the
    last attempt that acted, which says where to go on, and whether a person has to decide. Because
    it is one statement, a killed process leaves the anchor on one of the two attempts.

    Only the last attempt may act: a number may be free again because its attempt has moved to
    another name, or was pruned. So a process that was frozen before its claim may take that number.
    """
    if attempt.is_anchored:  # by its claim
        return
    here = database(str(attempt._state.db))
    with here.statements():
        [moved] = together(here, statements.move_anchor(attempt))
    if not moved:
        raise recorder.lost_error(attempt)


def is_first(attempt: Attempt) -> bool:
    """True if no attempt at this routine, of any version and scope key, acted before this one."""
    using = attempt._state.db
    tables = (Anchor, Completion)  # a pruned anchor leaves its completion
    return not any(
        each._default_manager.using(using).filter(routine=attempt.routine).exists()
        for each in tables
    )


def prune(using: str, days: float) -> int:
    """Delete attempts that ended more than some days ago but must not stay; return their number.

    Also delete wishes of that age, but for the last wish of each routine. Failed items stay.

    An anchor of what is completed is needed as long as it is the last of its routine, whose
    attempts go on being counted. That of a value of a state is needed for ever: it tells that the
    value is no new one. A process that is killed in between has deleted less.
    """
    old = {"finished_at__lt": Now() - timedelta(days=days)}
    attempts = Attempt.objects.using(using)
    last = attempts.filter(routine=OuterRef("routine")).order_by("-number").values("number")[:1]
    same = {name: OuterRef(name) for name in ("routine", "version", "scope_key")}
    needless = (
        Anchor.objects.using(using)
        .filter(Exists(Completion.objects.using(using).filter(**same)))
        .filter(attempt__in=attempts.filter(**old), number__lt=Subquery(last))
        .exclude(scope_key__startswith=PREFIX)
    )
    wishes = Wish.objects.using(using)
    later = Exists(wishes.filter(routine=OuterRef("routine"), number__gt=OuterRef("number")))
    undone = wishes.filter(later, made_at__lt=Now() - timedelta(days=days))
    with database(using).statements():
        # By their keys, because MySQL deletes no rows that a subquery of the same table finds.
        wishes.filter(pk__in=list(undone.values_list("pk", flat=True)))._raw_delete(using)
        for pk, kept in list(needless.values_list("pk", "attempt_id")):
            # Unless a reset has moved it meanwhile.
            Anchor.objects.using(using).filter(pk=pk, attempt_id=kept)._raw_delete(using)
        ended = attempts.exclude(state=State.RUNNING).filter(**old, anchor__isnull=True)
        deleted = 0
        while found := list(ended.order_by("pk").values_list("pk", flat=True)[:_CHUNK]):
            deleted += attempts.filter(pk__in=found)._raw_delete(using)
        return deleted


def forget(using: str, name: str) -> dict[str, int]:
    """Delete all records of a routine, in the transaction in hand; return their numbers by kind.

    Of kinds that most routines have none of, only where there were any.
    """
    models: dict[str, Any] = {"anchors": Anchor, "attempts": Attempt, "completions": Completion}
    rare: dict[str, Any] = {"failed items": FailedItem, "wishes": Wish}
    rows = {kind: model.objects.using(using) for kind, model in (models | rare).items()}
    removed = {kind: each.filter(routine=name)._raw_delete(using) for kind, each in rows.items()}
    return {kind: number for kind, number in removed.items() if number or kind in models}
