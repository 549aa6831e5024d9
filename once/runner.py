"""Read, guard, claim, work, release: brings routines to completion, each exactly once.

Reports through signals and results; never prints.
"""

import enum
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from django.db import DatabaseError, InterfaceError, connections

from once import conf, ledger, migrate, signals
from once.base import Routine
from once.databases import Database, database
from once.exceptions import (
    AttemptLost,
    BodyError,
    CannotFence,
    DatabaseUnavailable,
    GuardLost,
    InsideTransaction,
)
from once.guards import Guard
from once.ledger import Prospect, Standing
from once.models import Attempt, State
from once.registry import Registry
from once.waiting import TimedOut, Wait, one_line

__all__ = ["Outcome", "Result", "call_body", "run"]

ERROR_LENGTH = 10_000
#: How often one call repeats what another transaction, or a lost connection, undid.
_REPEATS = 10
_LIVENESS_DOUBLINGS = 3


class Outcome(enum.StrEnum):
    """What a call did about a routine."""

    RAN = "ran"
    WAITED = "waited"
    ALREADY_DONE = "already_done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a call did about one routine."""

    routine: Routine
    outcome: Outcome
    #: What happened and what to do next, where there is something to say.
    message: str = ""
    #: The attempt that this process made.
    attempt: Attempt | None = None
    #: How long the body, or the wait, took.
    seconds: float = 0.0
    #: Skipped because the deadline passed.
    timed_out: bool = False
    #: What the body raised.
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether the effects exist."""
        return self.outcome in (Outcome.RAN, Outcome.WAITED, Outcome.ALREADY_DONE)


def run(
    routines: Sequence[Routine],
    *,
    registry: Registry,
    trigger: str,
    wait: bool = True,
    timeout: float | None = None,
    patience: float | None = None,
    fake: bool = False,
) -> list[Result]:
    """Bring routines to completion, in their order, and stop where one fails.

    Args:
        routines: what to run, in order, with all that they come after.
        registry: where they come from.
        trigger: what called, for the history: at most 20 characters.
        wait: whether to wait for a routine that another process runs.
        timeout: seconds after which to stop waiting; none by default.
        patience: seconds for which a database may be out of reach, ``ONCE_STARTUP_TIMEOUT`` by
            default.
        fake: record them as done without calling their bodies or heeding ``after``.

    Returns:
        One result for each routine, in order.

    Raises:
        InsideTransaction: the calling thread is inside a transaction.
        DatabaseUnavailable: a database was out of reach for longer than ``patience``.

    """
    used = sorted({routine.using for routine in routines})
    for using in used:
        if connections[using].in_atomic_block:
            raise InsideTransaction(
                f"Routines were to be run inside a transaction of database {using!r}, which could "
                "undo their record. Call this outside of atomic() and of other routines' bodies."
            )
    with _leaving_connections_as_found(used):
        return _Pass(
            registry=registry,
            trigger=trigger,
            wait=wait,
            deadline=None if timeout is None else monotonic() + timeout,
            patience=conf.startup_timeout() if patience is None else patience,
            fake=fake,
        ).over(routines)


def call_body(routine: Routine, run: Any) -> None:
    """Call an atomic routine's body inside the transaction in hand, and see that it is intact.

    Raises:
        BodyError: the body ended, broke or left the transaction.

    """
    connection = connections[routine.using]
    session = connection.connection
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT once_body")
    routine.call(run)
    if connection.closed_in_transaction or connection.connection is not session:
        raise BodyError(
            "The body closed the connection that its transaction lives on. Remove "
            "connection.close() or close_old_connections() from it."
        )
    if connection.needs_rollback:
        raise BodyError(
            "The body asked for a rollback: by transaction.set_rollback(True), or by catching a "
            "database error inside the transaction. Wrap what may fail in transaction.atomic()."
        )
    try:
        with connection.cursor() as cursor:
            cursor.execute("RELEASE SAVEPOINT once_body")
    except DatabaseError as error:
        if database(routine.using).is_lost(error):
            raise
        raise BodyError(
            "The body ended its transaction itself, by COMMIT, ROLLBACK or a statement that "
            "commits, or left it broken by catching a database error. What it committed stays and "
            f"is not recorded. Leave the transaction to once, or use atomic=False. ({error})"
        ) from error


@dataclass(frozen=True, slots=True)
class _Run:
    """The ``run`` of a body."""

    using: str
    attempt: int
    key: str
    check: Callable[[], None]


class _Pass:
    """One pass over routines."""

    def __init__(
        self,
        *,
        registry: Registry,
        trigger: str,
        wait: bool,
        deadline: float | None,
        patience: float,
        fake: bool,
    ) -> None:
        self.registry = registry
        self.trigger = trigger
        self.wait = wait
        self.deadline = deadline
        self.patience = patience
        self.fake = fake
        self.unapplied: dict[str, list[str]] = {}

    def over(self, routines: Sequence[Routine]) -> list[Result]:
        results: dict[str, Result] = {}
        stands = self._read(routines) if routines else {}
        stopped = ""
        for routine in routines:
            if stands.get(routine.name, Standing.OPEN) is not Standing.OPEN:
                result = Result(routine=routine, outcome=Outcome.ALREADY_DONE)
            elif hindrance := stopped or self._undone_predecessor(routine, results):
                result = Result(routine=routine, outcome=Outcome.SKIPPED, message=hindrance)
            else:
                result = self._settle(routine)
                if result.outcome is Outcome.FAILED:
                    stopped = f"Not tried, since {routine.name} failed. Mend that one first."
                elif result.timed_out:
                    stopped = f"Not tried, since the deadline passed at {routine.name}."
            results[routine.name] = result
        return list(results.values())

    def _undone_predecessor(self, routine: Routine, results: dict[str, Result]) -> str:
        if not self.fake:
            for other in self.registry.predecessors(routine):
                if other.name in results and not results[other.name].is_done:
                    return f"Not tried, since {other.name} must be done before."
        return ""

    def _blocked(self, using: str) -> str:
        if using not in self.unapplied:
            self.unapplied[using] = migrate.unapplied(using)
        if not (unapplied := self.unapplied[using]):
            return ""
        more = f" and {len(unapplied) - 3} more" if len(unapplied) > 3 else ""
        return (
            f"Blocked: database {using!r} lacks migrations of this code "
            f"({', '.join(unapplied[:3])}{more}). Run `manage.py once run --migrate`, or "
            "`manage.py migrate` first."
        )

    def _read(self, routines: Sequence[Routine]) -> dict[str, Standing]:
        """Step 0. Where the record's tables are missing nothing is known."""
        wait = self._new_wait(routines[0])
        while True:
            try:
                return ledger.standing(routines)
            except (DatabaseError, InterfaceError) as error:
                here = [database(using) for using in {routine.using for routine in routines}]
                if any(one.is_lost(error) or one.is_conflict(error) for one in here):
                    wait.survive(error)
                elif all(ledger.is_installed(one.using) for one in here):
                    raise
                else:
                    return {}

    def _settle(self, routine: Routine) -> Result:
        """Poll until the routine is done, by this process or by another."""
        wait = self._new_wait(routine)
        try:
            return self._poll(routine, database(routine.using), wait)
        except TimedOut as error:
            return Result(
                routine=routine,
                outcome=Outcome.SKIPPED,
                message=str(error),
                seconds=wait.seconds,
                timed_out=True,
            )

    def _poll(self, routine: Routine, here: Database, wait: Wait) -> Result:
        failures = 0
        while True:
            try:
                if self._read([routine]).get(routine.name, Standing.OPEN) is not Standing.OPEN:
                    return Result(routine=routine, outcome=Outcome.WAITED, seconds=wait.seconds)
                if blocked := self._blocked(routine.using):
                    return Result(routine=routine, outcome=Outcome.SKIPPED, message=blocked)
                answer = self._try(routine, here, wait)
            except (DatabaseError, InterfaceError) as error:
                if not (here.is_lost(error) or here.is_conflict(error) or here.is_locked(error)):
                    message = f"Its record could not be kept: {one_line(error)}"
                    outcome = Outcome.FAILED
                    return Result(routine=routine, outcome=outcome, message=message, error=error)
                wait.survive(error)
                continue
            if isinstance(answer, Result):
                failures += 1
                if not _is_worth_repeating(answer, here) or failures == _REPEATS:
                    return answer
                answer = answer.message
            elif not self.wait:
                message = f"{answer}. Run this without --no-wait to wait for it."
                return Result(routine=routine, outcome=Outcome.SKIPPED, message=message)
            wait.pause(answer)

    def _try(self, routine: Routine, here: Database, wait: Wait) -> Result | str:
        """Guard, claim, work, release; or who is in the way."""
        # First the connection for the work: a guard without one would only keep others waiting.
        here.connection.ensure_connection()
        with here.guard(routine.name, conf.liveness_timeout()) as guard:
            try:
                if not guard.acquire():
                    return f"{routine.name} is run by {guard.holder}"
                ahead = guard.read(lambda: ledger.prospect(routine))
                if ahead.standing is not Standing.OPEN:
                    return f"{routine.name} has just been done"
                if doublings := min(ahead.lost_in_a_row, _LIVENESS_DOUBLINGS):
                    guard.keep(conf.liveness_timeout() * 2**doublings)
                with guard.yielding():
                    attempt = ledger.begin(routine, ahead, self.trigger)
                if attempt is None:
                    return f"{routine.name} was claimed by another process"
            except GuardLost as error:
                return str(error)
            return self._attempt(attempt, ahead, routine, here, guard, wait)

    def _attempt(
        self,
        attempt: Attempt,
        ahead: Prospect,
        routine: Routine,
        here: Database,
        guard: Guard,
        wait: Wait,
    ) -> Result | str:
        begun = monotonic()
        problem: BaseException | None = None
        try:
            self._fence(ahead, guard, wait)
            # Only now: a predecessor may have committed until it was fenced.
            if ledger.standing([routine])[routine.name] is not Standing.OPEN:
                ledger.close(attempt, State.INTERRUPTED, "A predecessor had done it.")
                return f"{routine.name} has just been done"
            signals.attempt_started.send_robust(routine, attempt=attempt)
            self._work(routine, attempt, here, guard)
            attempt.state = State.SUCCEEDED
        except BaseException as error:  # noqa: BLE001 (recorded, then reported or raised again)
            problem = error
            attempt.state = self._conclude(attempt, problem, here)
        result = _result(routine, attempt, problem, monotonic() - begun)
        signals.attempt_finished.send_robust(routine, result=result)
        if isinstance(problem, TimedOut) or not isinstance(problem, Exception | None):
            raise problem
        return result

    def _fence(self, ahead: Prospect, guard: Guard, wait: Wait) -> None:
        """Take from every predecessor the right to commit; final, also for a frozen one."""
        for predecessor in ahead.predecessors:
            closed = False
            while not closed:
                try:
                    with guard.yielding():
                        ledger.close(predecessor, State.LOST, "A successor took over.")
                    closed = True
                except CannotFence as error:
                    guard.ping()
                    wait.pause(str(error))

    def _work(self, routine: Routine, attempt: Attempt, here: Database, guard: Guard) -> None:
        """One transaction for effects and record, repeated where another one was in the way."""
        handle = _Run(routine.using, attempt.number, attempt.key, guard.check)
        for repeats_left in reversed(range(_REPEATS)):
            try:
                with here.work():
                    with guard.yielding():
                        marked = here.lock_work(ledger.work_name(attempt))
                    if not marked:
                        raise AttemptLost(f"Another session claims to work on {attempt}.")
                    ledger.lock(attempt)
                    guard.ping()
                    if not self.fake:
                        call_body(routine, handle)
                    ledger.complete(attempt)
                return
            except DatabaseError as error:
                if not here.is_conflict(error) or not repeats_left:
                    raise
                time.sleep(random.uniform(0.01, 0.1))  # noqa: S311

    def _conclude(self, attempt: Attempt, problem: BaseException, here: Database) -> State:
        """Settle how an attempt ended that did not end well: fence, then read."""
        blameless = isinstance(problem, GuardLost | TimedOut | KeyboardInterrupt)
        ended = State.INTERRUPTED if blameless else State.FAILED
        text = "".join(traceback.format_exception(problem))[-ERROR_LENGTH:]
        since = monotonic()
        while True:
            try:
                return ledger.close(attempt, ended, text)
            except (DatabaseError, InterfaceError, CannotFence) as error:
                may_pass = isinstance(error, CannotFence) or here.is_lost(error)
                if not may_pass or monotonic() - since > self.patience:
                    # Still "running": whoever holds the guard next settles it.
                    problem.add_note(f"How it ended could not be recorded: {one_line(error)}")
                    return State.RUNNING
                here.connection.close()
                time.sleep(random.uniform(0.1, 0.5))  # noqa: S311

    def _new_wait(self, routine: Routine) -> Wait:
        return Wait(
            name=routine.name,
            using=routine.using,
            deadline=self.deadline,
            patience=self.patience,
        )


def _is_worth_repeating(result: Result, here: Database) -> bool:
    """Whether an attempt failed for a reason outside its body that may pass."""
    if result.error is None or result.attempt is None:
        return False
    if isinstance(result.error, GuardLost | AttemptLost):
        return True
    return here.is_lost(result.error) and result.attempt.state != State.LOST


def _result(
    routine: Routine, attempt: Attempt, problem: BaseException | None, seconds: float
) -> Result:
    message = ""
    succeeded = attempt.state == State.SUCCEEDED
    if problem is not None:
        what = one_line(problem)
        if succeeded:
            message = f"Done and recorded, but afterwards: {what}"
        elif attempt.state == State.LOST:
            message = (
                f"Attempt {attempt.number} lost its right to commit, because another process took "
                f"over, and committed nothing ({what}). `manage.py once status` shows who runs it."
            )
        elif attempt.state == State.RUNNING:
            message = f"{what}. Whether it committed is settled by the next `manage.py once run`."
        elif isinstance(problem, BodyError):
            message = what
        else:
            message = f"{what}. Nothing of it was committed. Mend the cause and run this again."
    return Result(
        routine=routine,
        outcome=Outcome.RAN if succeeded else Outcome.FAILED,
        message=message,
        attempt=attempt,
        seconds=seconds,
        error=None if succeeded else problem,
    )


@contextmanager
def _leaving_connections_as_found(aliases: Sequence[str]) -> Iterator[None]:
    closed = [connections[alias] for alias in aliases if connections[alias].connection is None]
    try:
        yield
    finally:
        for connection in closed:
            if not connection.in_atomic_block:
                connection.close()

