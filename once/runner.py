"""Brings routines to completion in their order. Reports by results and signals; never prints."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from django.db import DatabaseError, Error

from once import conf, interruption, record, signals
from once.base import Routine
from once.databases import database
from once.guards import Guard
from once.record import Record, Standing
from once.registry import Registry
from once.results import Outcome, Result, already_done
from once.terms import Act, Terms
from once.text import one_line
from once.waiting import Wait

if TYPE_CHECKING:
    from once.claim import Claim
# Claim, report and migrate, and most of the package with them, are loaded where something is open:
# most starts find everything done.

__all__ = ["Act", "Outcome", "Result", "run"]

T = TypeVar("T")


def run(
    routines: Sequence[Routine],
    *,
    registry: Registry,
    trigger: str,
    act: Act = Act.RUN,
    wait: bool = True,
    timeout: float | None = None,
    patience: float | None = None,
    keep_going: bool = False,
    repeats: bool = True,
    heeds_delay: bool = False,
    user: str = "",
    reason: str = "",
) -> list[Result]:
    """Bring routines to completion, in their order, and stop where one fails.

    Args:
        routines: what to run, in order, with all that they come after.
        registry: where they come from.
        trigger: what called, for the history: one of :class:`once.models.Trigger`.
        act: ``Act.FAKE`` records them as done and ``Act.RETRY`` and ``Act.RESET`` make them pending
            again, without calling their bodies or heeding ``after``.
        wait: whether to wait for a routine that another process runs.
        timeout: seconds after which to stop waiting; none by default.
        patience: seconds for which a database may be out of reach, ``ONCE_STARTUP_TIMEOUT`` by
            default.
        keep_going: whether to go on, after a routine that failed, with those not behind it.
        repeats: whether a body may be called again, within this call, where another transaction
            was in the way of its own.
        heeds_delay: whether to leave out what failed lately, by ``ONCE_RETRY_DELAY``.
        user: who decided, where a person did.
        reason: why.

    Returns:
        One result for each routine, in order.

    Raises:
        InsideTransaction: the calling thread is inside a transaction.
        DatabaseUnavailable: a database was out of reach for longer than ``patience``.
        ImproperlyConfigured: a routine's scope lacks ``ONCE_RELEASE``, or a file.

    """
    for routine in routines:
        routine.check_scope()
    used = sorted({routine.using for routine in routines})
    terms = Terms(
        act=act,
        trigger=trigger,
        is_patient=wait,
        repeats=repeats,
        heeds_delay=heeds_delay,
        user=user,
        reason=reason,
    )
    with ExitStack() as ends:
        for using in used:
            ends.enter_context(database(using).session())
        one = _Pass(
            registry=registry,
            terms=terms,
            keeps_going=keep_going,
            deadline=None if timeout is None else monotonic() + timeout,
            patience=patience,
        )
        ends.callback(one.release)
        return one.over(routines)


@dataclass(slots=True, kw_only=True)
class _Pass:
    """One pass over routines."""

    registry: Registry
    terms: Terms
    keeps_going: bool
    deadline: float | None
    patience: float | None
    _hindrances: dict[str, str] = field(default_factory=dict)
    #: The last guard, at most one. The next one in the same database takes over its session.
    _guards: dict[str, Guard] = field(default_factory=dict)

    def release(self) -> None:
        """Free what the last guard still holds."""
        while self._guards:
            self._guards.popitem()[1].release()

    def over(self, routines: Sequence[Routine]) -> list[Result]:
        results: dict[str, Result] = {}
        stands = self._read(routines) if routines else {}
        due = self.terms.act.due
        stopped = ""
        for number, routine in enumerate(routines):
            known = stands.get(routine.name)  # what is not known is open, which is due in any case
            if known and known.standing not in due:
                result = self._left(routine, known)
            elif hindrance := stopped or self._hindrance(routine, results):
                result = Result(routine=routine, outcome=Outcome.SKIPPED, message=hindrance)
            else:
                claim = self._claim(routine)
                result = claim.settle(known)
                if not result.is_done:
                    self.release()
                if claim.wait.has_paused:  # meanwhile, others may have done those behind it
                    stands = self._read(routines[number + 1 :])
                if result.outcome is Outcome.FAILED and not self.keeps_going:
                    stopped = f"Not tried, since {routine.name} failed. Fix that one first."
                elif result.timed_out:
                    stopped = f"Not tried, since the deadline passed at {routine.name}."
                interruption.check()
            if result.outcome is Outcome.SKIPPED:
                signals.skipped.send_robust(routine, result=result)
            results[routine.name] = result
        return list(results.values())

    def _left(self, routine: Routine, known: Record) -> Result:
        """The result where there is nothing to do."""
        if known.standing is not Standing.HELD:
            done = already_done(routine)
            return replace(done, is_overtaken=True) if known.is_overtaken else done
        from once import report

        return report.held(routine)

    def _claim(self, routine: Routine) -> "Claim":
        from once.claim import Claim

        here = database(routine.using)
        before = self._guards.get(routine.using)
        if before is None:
            self.release()  # one that is for another database
        guard = here.guard(routine.name, conf.liveness_timeout(), before)
        self._guards[routine.using] = guard
        return Claim(
            routine=routine,
            here=here,
            guard=guard,
            wait=self._new_wait(routine, guard),
            terms=self.terms,
        )

    def _new_wait(self, routine: Routine, guard: Guard | None = None) -> Wait:
        return Wait(
            name=routine.name,
            using=routine.using,
            deadline=self.deadline,
            limit=self.patience,
            guard=guard,
        )

    def _read(self, routines: Sequence[Routine]) -> dict[str, Record]:
        """Step 0. Where the record's tables are missing, nothing is known."""
        found: dict[str, Record] = {}
        for using in sorted({routine.using for routine in routines}):
            here = [routine for routine in routines if routine.using == using]
            found |= self._patiently(partial(_read, using, here), here[0])
        return found

    def _hindrance(self, routine: Routine, results: dict[str, Result]) -> str:
        if self.terms.act is Act.RUN:
            for other in self.registry.predecessors(routine):
                before = results.get(other.name)
                if before is None:
                    continue
                if not before.is_done:
                    return f"Not tried, since {other.name} must be done before."
                if before.is_overtaken and self._read([other])[other.name].is_overtaken:
                    return (
                        f"Not tried, since {other.name} must be done before: a newer version of "
                        "it was begun, and is not done yet."
                    )
        if self.terms.act in (Act.RETRY, Act.RESET):
            return ""
        using = routine.using
        if using not in self._hindrances:
            from once import migrate

            unapplied = self._patiently(lambda: migrate.unapplied(using), routine)
            self._hindrances[using] = _blocked(using, unapplied)
        return self._hindrances[using]

    def _patiently(self, function: Callable[[], T], routine: Routine) -> T:
        """Call a function that reads, again where its database could not be reached."""
        wait = self._new_wait(routine)
        while True:
            try:
                with wait.asking():
                    return function()
            except Error as error:
                here = database(routine.using)
                self.release()  # it may be what others lack
                if here.is_lost(error):
                    wait.survive(error)
                elif self.terms.is_patient and (here.is_conflict(error) or here.is_locked(error)):
                    wait.pause(one_line(error))
                else:
                    raise


def _read(using: str, routines: list[Routine]) -> dict[str, Record]:
    try:
        return record.read(routines)
    except DatabaseError as error:
        if database(using).is_lost(error) or record.is_installed(using):
            raise
        return {}


def _blocked(using: str, unapplied: list[str]) -> str:
    if not unapplied:
        return ""
    more = f" and {len(unapplied) - 3} more" if len(unapplied) > 3 else ""
    return (
        f"Blocked: database {using!r} lacks migrations of this code "
        f"({', '.join(unapplied[:3])}{more}). Run `manage.py once run --migrate`, or "
        "`manage.py migrate` first."
    )
