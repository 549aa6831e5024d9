"""Brings routines to completion in their order. Reports by results and signals; never prints."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from django.db import Error, connections

from once import conf, signals
from once.databases import PATIENCE, database
from once.databases.lock import AdvisoryLock, NoLock
from once.engine import roles, shutdown
from once.engine.backoff import Retry, Wait
from once.engine.options import RunOptions
from once.exceptions import AttemptLost
from once.models import Trigger
from once.record import failed_items, history
from once.record.standing import Record, Standing
from once.results import Outcome, Reason, Result, already_done, skipped
from once.routines.base import Routine
from once.routines.registry import Registry

if TYPE_CHECKING:
    from once.engine.claim import Claim
    from once.engine.suspicions import Suspicions
    from once.record.gates import Behind
# Because most starts find everything done, `claim`, `suspicions` and `gates`, and most
# of the package with them, are loaded only where a routine is open.

T = TypeVar("T")

#: Passes of one call, if each one finds that something is lost.
_PASSES = 10

_LOST = "was done, and is not any more: the database lost commits, or a person reset it"


def run(routines: Sequence[Routine], registry: Registry, options: RunOptions) -> list[Result]:
    """Bring routines to completion, and stop where one fails; return one result for each routine.

    The routines are in their order, and with them is all that they come after.

    Raises:
        InsideTransaction: the calling thread is inside a transaction.
        DatabaseUnavailable: a database was out of reach for longer than ``ONCE_STARTUP_TIMEOUT``.
        AttemptLost: a database lost what was done, and what this call must not do again.
        TimedOut: at the deadline, a database had lost what was done.
        ImproperlyConfigured: a routine's scope lacks ``ONCE_RELEASE``, or a file.

    """
    for routine in routines:
        routine.check_scope()
    deadline = None if options.timeout is None else monotonic() + options.timeout
    results: dict[str, Result] = {}
    left = routines
    for passes_left in reversed(range(_PASSES)):
        current = _Pass(registry=registry, options=options, deadline=deadline)
        try:
            current.through(left, results)
            left = current.lost(results, is_last=not passes_left)
        finally:
            current.end()
        if not left:
            break
    return list(results.values())


@dataclass(slots=True, kw_only=True)
class _Pass:
    """A pass over routines, with one session at a time."""

    registry: Registry
    options: RunOptions
    deadline: float | None
    #: By alias, what stands of the migrations that the database lacks.
    _behind: dict[str, "Behind"] = field(default_factory=dict)
    _suspicions: "Suspicions | None" = None
    #: Alias of the database that the pass is at, and what ends its session and its lock there.
    _using: str = ""
    _session: ExitStack = field(default_factory=ExitStack)
    #: The lock there, which serves one routine after another.
    _lock: AdvisoryLock = field(default_factory=NoLock)
    #: True if what was done may be lost by now; and why no further routine is tried, if so.
    _is_stale: bool = False
    _stopped: str = ""
    #: True if no connection that was open before is asked.
    _renews: bool = False
    _is_new: bool = False  # since the last look of a waiter
    #: Aliases of the databases to which a connection was open before.
    _found_open: set[str] = field(
        default_factory=lambda: {
            each.alias for each in connections.all(initialized_only=True) if each.connection
        }
    )

    def end(self) -> None:
        """Leave no session and no connection behind that was not open before."""
        self._using, self._lock = "", NoLock()
        self._session.close()
        for connection in connections.all(initialized_only=True):  # a body may have used any
            if connection.alias not in self._found_open and not connection.in_atomic_block:
                connection.close()

    def _go_to(self, using: str) -> None:
        """Have a session in one database, and none in another: there may be many, on one server."""
        if using != self._using:
            if self._using:
                self.end()
            self._session.enter_context(database(using).session(is_new=self._renews))
            self._using = using

    def through(self, routines: Sequence[Routine], results: dict[str, Result]) -> None:
        """Add one result for each routine, in order."""
        stands, due = self._read(routines), self.options.due
        done = {Standing.DONE, Standing.SUPERSEDED}.difference(due)
        for number, routine in enumerate(routines):
            known = stands.get(routine.name)  # what is not known is open, which is due in any case
            uncarried = None
            if known and known.uncarried and not self._stopped:
                from once.engine import renaming

                uncarried = renaming.carry(routine, known, self.options, self._claim)
                stands = self._read(routines[number:])
                known = stands.get(routine.name)
            if known and known.standing in done:  # as most are
                results[routine.name] = already_done(routine)
                if known.is_overtaken:
                    results[routine.name] = replace(results[routine.name], reason=Reason.OVERTAKEN)
                continue
            elsewhere = roles.left(routine, self.registry, self.options, results)
            if known and known.standing not in due and (known.is_done or not elsewhere):
                from once.engine import verdict

                result = verdict.left(routine, known)
            elif left := elsewhere or uncarried:
                result = left
            elif blocker := self._stopped or self._blocker(routine, known, results):
                result = skipped(routine, blocker)
            else:
                self._suspect(routine, routines, stands)
                claim = self._claim(routine, self.options, known)
                result = claim.settle()
                self._is_new = claim.wait.has_paused and result.outcome is Outcome.WAITED
                if claim.wait.has_paused:  # in which another process may have done the next
                    stands = self._read(routines[number + 1 :])
                with shutdown.heeded():  # also inside of a look of `once work`, which defers it
                    pass
            if result.outcome is Outcome.FAILED and not self.options.keep_going:
                self._stopped = f"Not tried, since {routine.name} failed. Fix that one first."
            elif result.reason is Reason.TIMED_OUT and not self._stopped:
                self._stopped = f"Not tried, since the deadline passed at {routine.name}."
            if result.outcome is Outcome.SKIPPED:
                signals.skipped.send_robust(routine, result=result)
            results[routine.name] = result

    def lost(self, results: dict[str, Result], *, is_last: bool) -> list[Routine]:
        """Return what another pass is for: what a database lost meanwhile, and what is behind it.

        A failover or a crash may lose completions that this pass has read, or made. Therefore they
        are read again where a routine was claimed, by connections of now.
        """
        if not self._is_stale or self._stopped:
            return []
        if any(each.outcome is Outcome.FAILED for each in results.values()):
            return []
        if not self._is_new:  # a session stays on a database server that is no primary any more
            self._renews = True
            self.end()
        done = [each for each in results.values() if each.is_done]
        deadline = self.deadline
        if deadline is not None:  # after which a body may have ended: done is done
            self.deadline = max(deadline, monotonic() + PATIENCE)
        stands = self._read([each.routine for each in done])
        self.deadline = deadline
        still = {name for name, record in stands.items() if record.is_done}
        lost = [each for each in done if each.routine.name not in still]
        for each in lost:
            is_final = each.outcome is Outcome.RAN and not self.options.repeats(each.routine)
            if is_final or is_last:
                raise AttemptLost(f"{each.routine.name} {_LOST}. To call it again, run this again.")
        if not lost:
            return []
        self.end()  # so that the pause closes what was open before, too
        self._new_wait(lost[0].routine).pause(f"{lost[0].routine.name} {_LOST}")
        return [each.routine for each in results.values() if each.routine.name not in still]

    def _suspect(
        self, routine: Routine, routines: Sequence[Routine], stands: dict[str, Record]
    ) -> None:
        known = stands.get(routine.name)
        if not (known and known.is_untried and self.options.calls_body):
            return
        from once.engine.suspicions import Suspicions

        self._suspicions = self._suspicions or Suspicions(self.registry)
        ask = partial(self._patiently, routine=routine)
        self._suspicions.tell(routine, routines, stands, ask)

    def _claim(self, routine: Routine, options: RunOptions, known: Record | None = None) -> "Claim":
        from once.engine.claim import Claim

        self._is_stale = self.options.trigger != Trigger.RESET  # after which nothing is done
        before = self.registry.predecessors(routine) if options.calls_body else []
        if behind := self._behind.get(routine.using):
            routine = behind.bound(routine)
        here = database(routine.using)
        self._go_to(routine.using)
        if isinstance(self._lock, NoLock):
            lock = here.lock(routine.name, conf.liveness_timeout())
            self._lock = self._session.enter_context(lock)
        else:
            self._lock.switch_to(routine.name)
        return Claim(
            routine=routine,
            here=here,
            lock=self._lock,
            wait=self._new_wait(routine, self._lock),
            options=options,
            known=known,
            after=[each for each in before if each.using == routine.using],
            elsewhere=[each for each in before if each.using != routine.using],
        )

    def _new_wait(self, routine: Routine, lock: AdvisoryLock | None = None) -> Wait:
        lock = lock or NoLock()
        return Wait(name=routine.name, using=routine.using, deadline=self.deadline, lock=lock)

    def _read(self, routines: Sequence[Routine]) -> dict[str, Record]:
        """Read the record: step 1 of docs/explanation/protocol.md. Without tables, it is empty."""
        found: dict[str, Record] = {}
        # Last the one in which the pass goes on.
        first = routines[0].using if routines else ""
        for using in sorted({each.using for each in routines}, key=lambda it: (it == first, it)):
            here = [routine for routine in routines if routine.using == using]
            read = partial(history.read_if_installed, here, thoroughly=self.options.is_thorough)
            found |= self._patiently(read, here[0])
        return found

    def _blocker(self, routine: Routine, known: Record | None, results: dict[str, Result]) -> str:
        if self.options.calls_body:
            for other in self.registry.predecessors(routine):
                before = results.get(other.name)
                if before and (why := self._why_not_done(other, before)) is not None:
                    return f"Not tried, since {other.name} must be done before{why}."
        needed = self.options.needed
        if self.options.trigger == Trigger.RESET or (needed and needed.name == routine.name):
            return ""
        using = routine.using
        if using not in self._behind:
            from once.record import gates

            self._behind[using] = self._patiently(
                partial(
                    gates.behind,
                    using,
                    is_readable=known is not None,
                    is_migrating=needed is not None and needed.using == using,
                ),
                routine,
            )
        return self._behind[using].blocker(routine)

    def _why_not_done(self, routine: Routine, result: Result) -> str | None:
        """Return why what comes after a routine cannot be tried, perhaps in no words, or none."""
        if not result.is_done:
            return ""
        count = partial(failed_items.count, routine)
        failed = self._patiently(count, routine) if routine.over else 0
        if not (failed or result.reason is Reason.OVERTAKEN):
            return None
        record = self._read([routine])[routine.name]
        if record.is_overtaken:
            return ": a newer version or value of it was begun, and is not done yet"
        is_done = record.standing is Standing.DONE
        return (
            f": {failed_items.explain(routine.name, failed)[:-1]}" if failed and is_done else None
        )

    def _patiently(self, function: Callable[[], T], routine: Routine) -> T:
        """Call a function that reads, again where its database could not be reached."""

        def look() -> "T | Retry":
            try:
                self._go_to(routine.using)
                with wait.asking():
                    return function()
            except Error as error:
                self._lock.release()  # other processes may lack its session
                here = database(routine.using)
                if self.options.wait and here.is_in_the_way(error):
                    return Retry(partial(here.obstacle, error))
                raise

        wait = self._new_wait(routine)
        return wait.until(look)
