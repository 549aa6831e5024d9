"""The claim protocol for one routine: read, guard, claim, work, release; or wait for who does."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeAlias

from django.db import Error

from once import conf, interruption, ledger, record, report, signals
from once.base import Routine
from once.body import exit_of_body
from once.databases import Database
from once.exceptions import AttemptLost, CannotFence, GuardLost, NoConnection, TimedOut
from once.guards import Guard
from once.ledger import Prospect
from once.models import Attempt, State
from once.record import Record, Standing
from once.results import Outcome, Result
from once.terms import Act, Terms
from once.text import one_line, whole
from once.waiting import Wait
from once.work import Work

__all__ = ["Claim"]

#: The end of it; why to pause, or what finds that out; or that the record has changed.
Answer: TypeAlias = "Result | str | Callable[[], str] | None"

#: How often one call makes another attempt, after one that ended for no reason of its body.
_ATTEMPTS = 10
#: How often the liveness timeout doubles for attempts that were lost in a row.
_DOUBLINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One routine on its way to completion, by this process or by another."""

    routine: Routine
    here: Database
    guard: Guard
    wait: Wait
    terms: Terms

    def settle(self, known: Record | None = None) -> Result:
        """Poll until the routine is done, failed, or given up.

        Where it is done, the guard may still be held, for the next claim to take over.

        Args:
            known: what the record said a moment ago.

        Raises:
            DatabaseUnavailable: the database was out of reach for too long.

        """
        attempts = 0
        try:
            while True:
                answer = self._poll(known, is_first=not attempts)
                known = None
                if answer is None:  # it changed since it was read: look again
                    self.guard.step_back()
                    continue
                if isinstance(answer, Result):
                    if answer.outcome is not Outcome.FAILED:
                        return answer
                    # Batches that were committed are worth as many attempts again.
                    went_on = answer.attempt and answer.attempt.processed > answer.attempt.resumed
                    attempts = 1 if went_on else attempts + 1
                    if attempts == _ATTEMPTS or not self._is_worth_repeating(answer):
                        return answer
                    answer = one_line(answer.error)
                elif not self.terms.is_patient:
                    why = answer() if callable(answer) else answer
                    return self._result(Outcome.SKIPPED, message=why)
                self.guard.step_back()
                self.wait.pause(answer)
        except TimedOut as error:
            return self._result(
                Outcome.SKIPPED, message=str(error), seconds=self.wait.seconds, timed_out=True
            )

    def _poll(self, known: Record | None, *, is_first: bool) -> Answer:
        """One look at the guard and the record and, where something is to be done, one try."""
        heeds_delay = self.terms.heeds_delay and is_first
        while True:
            try:
                with self.wait.asking():
                    # Before anything that takes longer, or a second connection.
                    if self.wait.has_paused and self._is_in_other_hands():
                        return self._held
                    # What was to be put off then may be due by now.
                    found = known if known and not known.retry_in else self._record()
                    if not self.terms.act.is_due(found.standing):
                        return self._leave(found)
                    if heeds_delay and found.retry_in and not found.is_running:
                        return self._put_off(found)
                return self._try(heeds_delay=heeds_delay)
            except NoConnection as error:
                self._survive(error)
            except Error as error:
                if self.here.is_conflict(error) or self.here.is_locked(error):
                    return one_line(error)
                if not self.here.is_lost(error):
                    message = f"Its record could not be kept: {one_line(error)}"
                    return self._result(
                        Outcome.FAILED, message=message, error=error, has_failed=True
                    )
                self._survive(error)
            known = None

    def _survive(self, error: Exception) -> None:
        # Nor an heir's session: others may lack the connection.
        self.guard.release()
        self.wait.survive(error)

    def _record(self) -> Record:
        return record.read([self.routine])[self.routine.name]

    def _is_in_other_hands(self) -> bool:
        """Whether there is nothing but to wait: a look that costs as little as can be.

        Now and then the record is read as well. Who is done may hold the guard on: it is frozen, or
        a hook that follows its commit takes long.
        """
        self.guard.refuse_own_thread()
        if self.guard.is_worth_trying():
            return False
        self.wait.expect(self.guard.freed_in)
        self.guard.freed_in = None
        return not self.wait.is_report_due

    def _held(self) -> str:
        with suppress(Error), self.wait.asking():
            self.guard.find_holder()
        return f"{self.routine.name} is run by {self.guard.holder}"

    def _try(self, *, heeds_delay: bool) -> Answer:
        """Guard and claim, then work; or who is in the way."""
        # First the connection for the work: a guard without one would only keep others waiting.
        self.here.connection.ensure_connection()
        guard = self.guard
        try:
            if not guard.acquire(self.wait.patience_left):
                guard.refuse_own_thread()
                return self._held
            ahead = guard.read(lambda: ledger.prospect(self.routine))
            if not self.terms.act.is_due(ahead.record.standing):
                return None
            if heeds_delay and ahead.record.retry_in:
                return self._put_off(ahead.record)
            if doublings := min(ahead.record.lost_in_a_row, _DOUBLINGS):
                guard.keep(conf.liveness_timeout() * 2**doublings)
            # From here on a signal waits, except where a body or a pause may be broken off:
            # raised inside a COMMIT it would leave the connection in a state that lies.
            with interruption.deferred():
                return self._begin(ahead)
        except NoConnection:
            raise
        except GuardLost as error:
            return str(error)

    def _begin(self, ahead: Prospect) -> Answer:
        with self.guard.yielding(), self.here.answering(self.wait.patience_left):
            attempt = ledger.begin(
                self.routine,
                ahead,
                self.terms.trigger,
                user=self.terms.user,
                reason=self.terms.reason,
            )
        if attempt is None:
            return f"{self.routine.name} was claimed by another process"
        return self._attempt(attempt, ahead)

    def _attempt(self, attempt: Attempt, ahead: Prospect) -> Answer:
        started = monotonic()
        is_announced = False
        problem: BaseException | None = None
        work = Work(
            routine=self.routine,
            attempt=attempt,
            here=self.here,
            guard=self.guard,
            patience=self.wait.patience,
            may_repeat=self.routine.retry and self.terms.repeats,
            was_batched=ahead.record.is_batched,
        )
        try:
            self.guard.check()  # it may have made way for the claim
            self.wait.answered()
            self._fence(ahead, attempt)
            # Only now: a predecessor may have committed until it was fenced.
            if ahead.record.has_running and not self.terms.act.is_due(self._record().standing):
                why = "There was nothing left to do, or to try by itself."
                ledger.close(attempt, State.INTERRUPTED, why, is_harmless=True)
                return None
            # Before the transaction, which a receiver's query could break.
            is_announced = True
            signals.attempt_started.send_robust(self.routine, attempt=attempt)
            self._act(work)
            attempt.state = State.SUCCEEDED
        except BaseException as error:  # recorded, then reported or raised again
            problem = exit_of_body(error) if isinstance(error, SystemExit) else error
            attempt.state = self._conclude(work, problem)
        if not is_announced and isinstance(problem, GuardLost | AttemptLost | CannotFence):
            if isinstance(problem, NoConnection):
                raise problem
            return str(problem)
        result = report.ended(work, problem, monotonic() - started)
        if is_announced:
            signals.attempt_finished.send_robust(self.routine, result=result)
        if isinstance(problem, TimedOut) or not isinstance(problem, Exception | None):
            raise problem
        return result

    def _act(self, work: Work) -> None:
        acts = {
            Act.RUN: work.do,
            Act.FAKE: work.fake,
            Act.RETRY: work.reset,
            Act.RESET: work.reset,
        }
        acts[self.terms.act]()

    def _fence(self, ahead: Prospect, attempt: Attempt) -> None:
        """Take from every predecessor the right to commit; final, also for a frozen one."""
        for predecessor in ahead.predecessors:
            while True:
                try:
                    with self.guard.yielding(), self.here.answering():
                        ended = ledger.close(predecessor, State.LOST, "A successor took over.")
                except CannotFence as error:
                    if not self.terms.is_patient:
                        raise
                    self.guard.ping()
                    self.wait.pause(str(error))
                else:
                    break
            predecessor.state = ended
            if ended is State.LOST:
                signals.attempt_lost.send_robust(
                    self.routine, attempt=predecessor, successor=attempt
                )

    def _conclude(self, work: Work, problem: BaseException) -> State:
        """Settle how an attempt ended that did not end well: fence, then read."""
        blameless = isinstance(problem, GuardLost | CannotFence | TimedOut | KeyboardInterrupt)
        ended = State.INTERRUPTED if blameless else State.FAILED
        since = monotonic()
        while True:
            try:
                with self.here.answering():
                    return ledger.close(
                        work.attempt, ended, whole(problem), is_harmless=not work.is_begun
                    )
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
        if failed.error is None or failed.attempt is None or failed.is_final:
            return False
        if isinstance(failed.error, GuardLost | AttemptLost):
            return True
        # Django's own errors only: a body may talk to other databases by other means.
        if not isinstance(failed.error, Error) or failed.attempt.state == State.LOST:
            return False
        # What one attempt may not repeat by itself, another one may, as long as it is not final.
        leaves_it = self.routine.kind == "batched" or not self.routine.retry
        return (leaves_it and self.here.is_conflict(failed.error)) or self.here.is_lost(
            failed.error
        )

    def _leave(self, found: Record) -> Result:
        """The result where there is nothing to do for this process."""
        if found.standing is Standing.HELD:
            return report.held(self.routine)
        self.wait.end()
        return self._result(
            Outcome.WAITED, seconds=self.wait.seconds, is_overtaken=found.is_overtaken
        )

    def _put_off(self, found: Record) -> Result:
        """The result where starting servers leave out what went ill lately."""
        return report.put_off(self.routine, found, record.last_failure(self.routine))

    def _result(self, outcome: Outcome, **details: Any) -> Result:
        return Result(routine=self.routine, outcome=outcome, **details)
