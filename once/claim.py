"""The claim protocol for one routine: read, guard, claim, work, release; or wait for who does."""

import random
import time
from dataclasses import dataclass
from time import monotonic

from django.db import DatabaseError, Error

from once import body, conf, ledger, signals
from once.base import Routine, Run
from once.databases import Database
from once.exceptions import AttemptLost, BodyError, CannotFence, GuardLost, TimedOut
from once.guards import Guard
from once.ledger import Prospect, Standing
from once.models import Attempt, State
from once.results import Outcome, Result
from once.text import one_line, whole
from once.waiting import Wait

__all__ = ["Claim"]

#: How often one call repeats what another transaction, or a lost connection, undid.
_REPEATS = 10
#: How often the liveness timeout doubles for attempts that were lost in a row.
_DOUBLINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One routine on its way to completion, by this process or by another."""

    routine: Routine
    here: Database
    wait: Wait
    #: What called, for the history.
    trigger: str
    #: Whether to wait for another process.
    is_patient: bool
    #: Whether to record it without calling its body.
    is_fake: bool

    def settle(self) -> Result:
        """Poll until the routine is done, failed, or given up.

        Raises:
            DatabaseUnavailable: the database was out of reach for too long.

        """
        failures = 0
        try:
            while True:
                answer = self._poll()
                if isinstance(answer, Result):
                    if answer.outcome is not Outcome.FAILED:
                        return answer
                    failures += 1
                    if failures == _REPEATS or not self._is_worth_repeating(answer):
                        return answer
                    answer = one_line(answer.error)
                elif not self.is_patient:
                    return self._result(Outcome.SKIPPED, message=answer)
                self.wait.pause(answer)
        except TimedOut as error:
            return self._result(
                Outcome.SKIPPED, message=str(error), seconds=self.wait.seconds, timed_out=True
            )

    def _poll(self) -> Result | str:
        """One look at the record and, where nothing is done, one try at the guard."""
        while True:
            try:
                if self._stands() is not Standing.OPEN:
                    self.wait.end()
                    return self._result(Outcome.WAITED, seconds=self.wait.seconds)
                return self._try()
            except Error as error:
                if self.here.is_conflict(error) or self.here.is_locked(error):
                    return one_line(error)
                if not self.here.is_lost(error):
                    message = f"Its record could not be kept: {one_line(error)}"
                    return self._result(Outcome.FAILED, message=message, error=error)
                self.wait.survive(error)

    def _stands(self) -> Standing:
        return ledger.standing([self.routine])[self.routine.name]

    def _try(self) -> Result | str:
        """Guard and claim, then work; or who is in the way."""
        name = self.routine.name
        # First the connection for the work: a guard without one would only keep others waiting.
        self.here.connection.ensure_connection()
        with self.here.guard(name, conf.liveness_timeout()) as guard:
            try:
                if not guard.acquire():
                    guard.refuse_own_thread()
                    self.wait.expect(guard.freed_in)
                    return f"{name} is run by {guard.holder}"
                self.wait.answered()
                ahead = guard.read(lambda: ledger.prospect(self.routine))
                if ahead.standing is not Standing.OPEN:
                    return f"{name} has just been done"
                if doublings := min(ahead.lost_in_a_row, _DOUBLINGS):
                    guard.keep(conf.liveness_timeout() * 2**doublings)
                with guard.yielding():
                    attempt = ledger.begin(self.routine, ahead, self.trigger)
            except GuardLost as error:
                return str(error)
            if attempt is None:
                return f"{name} was claimed by another process"
            return self._attempt(attempt, ahead, guard)

    def _attempt(self, attempt: Attempt, ahead: Prospect, guard: Guard) -> Result | str:
        started = monotonic()
        is_announced = False
        problem: BaseException | None = None
        try:
            self._fence(ahead, guard)
            # Only now: a predecessor may have committed until it was fenced.
            if self._stands() is not Standing.OPEN:
                ledger.close(attempt, State.INTERRUPTED, "A predecessor had done it.")
                return f"{self.routine.name} has just been done"
            # Before the transaction, which a receiver's query could break.
            is_announced = True
            signals.attempt_started.send_robust(self.routine, attempt=attempt)
            self._work(attempt, guard)
            attempt.state = State.SUCCEEDED
        except BaseException as error:  # recorded, then reported or raised again
            problem = error
            attempt.state = self._conclude(attempt, problem)
        if not is_announced and isinstance(problem, GuardLost | AttemptLost | CannotFence):
            return str(problem)
        result = self._report(attempt, problem, monotonic() - started)
        if is_announced:
            signals.attempt_finished.send_robust(self.routine, result=result)
        if isinstance(problem, TimedOut) or not isinstance(problem, Exception | None):
            raise problem
        return result

    def _fence(self, ahead: Prospect, guard: Guard) -> None:
        """Take from every predecessor the right to commit; final, also for a frozen one."""
        for predecessor in ahead.predecessors:
            while True:
                try:
                    with guard.yielding():
                        ledger.close(predecessor, State.LOST, "A successor took over.")
                except CannotFence as error:
                    if not self.is_patient:
                        raise
                    guard.ping()
                    self.wait.pause(str(error))
                else:
                    break

    def _work(self, attempt: Attempt, guard: Guard) -> None:
        """One transaction for effects and record, repeated where another one was in the way."""
        run = Run(
            using=self.routine.using,
            attempt=attempt.number,
            key=attempt.key,
            check=guard.check,
        )
        for repeats_left in reversed(range(_REPEATS)):
            try:
                with self.here.work():
                    with guard.yielding():
                        marked = self.here.lock_work(ledger.work_name(attempt))
                    if not marked:
                        raise AttemptLost(f"Another session claims to work on {attempt}.")
                    ledger.lock(attempt)
                    guard.ping()
                    if not self.is_fake:
                        body.call(self.routine, run)
                    ledger.complete(attempt)
            except DatabaseError as error:
                if not self.here.is_conflict(error) or not repeats_left:
                    raise
                time.sleep(random.uniform(0.01, 0.1))  # noqa: S311
            else:
                return

    def _conclude(self, attempt: Attempt, problem: BaseException) -> State:
        """Settle how an attempt ended that did not end well: fence, then read."""
        blameless = isinstance(problem, GuardLost | CannotFence | TimedOut | KeyboardInterrupt)
        ended = State.INTERRUPTED if blameless else State.FAILED
        since = monotonic()
        while True:
            try:
                return ledger.close(attempt, ended, whole(problem))
            except (Error, CannotFence) as error:
                may_pass = isinstance(error, CannotFence) or self.here.is_lost(error)
                if not may_pass or monotonic() - since > self.wait.patience:
                    # Still "running": whoever holds the guard next settles it.
                    problem.add_note(f"How it ended could not be recorded: {one_line(error)}")
                    return State.RUNNING
                self.here.connection.close()
                time.sleep(random.uniform(0.1, 0.5))  # noqa: S311

    def _is_worth_repeating(self, failed: Result) -> bool:
        """Whether an attempt failed for a reason outside its body that may pass."""
        if failed.error is None or failed.attempt is None:
            return False
        if isinstance(failed.error, GuardLost | AttemptLost):
            return True
        # Django's own errors only: a body may talk to other databases by other means.
        is_lost = isinstance(failed.error, Error) and self.here.is_lost(failed.error)
        return is_lost and failed.attempt.state != State.LOST

    def _report(self, attempt: Attempt, problem: BaseException | None, seconds: float) -> Result:
        if problem is None:
            return self._result(Outcome.RAN, attempt=attempt, seconds=seconds)
        what = one_line(problem).rstrip(".")
        if attempt.state == State.SUCCEEDED:
            message = f"Done and recorded, but afterwards: {what}"
            return self._result(Outcome.RAN, attempt=attempt, seconds=seconds, message=message)
        if attempt.state == State.LOST:
            message = (
                f"Attempt {attempt.number} lost its right to commit, because another process took "
                f"over, and committed nothing ({what}). `manage.py once status` shows who runs it."
            )
        elif attempt.state == State.RUNNING:
            message = f"{what}. Whether it committed is settled by the next `manage.py once run`."
        elif isinstance(problem, BodyError):
            message = what
        elif attempt.state == State.INTERRUPTED:
            message = f"{what}. Nothing of it was committed."
        else:
            message = f"{what}. Nothing of it was committed. Mend the cause and run this again."
        return self._result(
            Outcome.FAILED, attempt=attempt, seconds=seconds, message=message, error=problem
        )

    def _result(
        self,
        outcome: Outcome,
        *,
        message: str = "",
        attempt: Attempt | None = None,
        seconds: float = 0.0,
        timed_out: bool = False,
        error: BaseException | None = None,
    ) -> Result:
        return Result(
            routine=self.routine,
            outcome=outcome,
            message=message,
            attempt=attempt,
            seconds=seconds,
            timed_out=timed_out,
            error=error,
        )
