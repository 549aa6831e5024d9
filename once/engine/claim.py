"""The claim protocol for one routine: read, lock, claim, work; or wait for the holder.

Each step calls the next: ``settle`` repeats looks, ``_look`` survives errors, ``_poll`` reads,
``_try`` takes the lock, ``_claim_next`` inserts an attempt, ``_carry_out`` has it work. The answer
of a step is a ``Result``, which ends the claim; ``Retry(reason)``, which pauses; or ``AGAIN``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

from django.db import Error

from once import conf, signals
from once.databases import Database, put_to_rest, refuse_left_open
from once.databases.lock import AdvisoryLock
from once.engine import shutdown, verdict
from once.engine.attempt import Work
from once.engine.backoff import AGAIN, Retry, Wait
from once.engine.body import exit_of_body
from once.engine.options import RunOptions
from once.exceptions import (
    AttemptLost,
    CannotFence,
    DatabaseUnavailable,
    LockLost,
    NoConnection,
    TimedOut,
)
from once.models import DECISIONS, Attempt, State, Trigger
from once.record import failed_items, history, recorder
from once.record.history import NextAttempt
from once.record.standing import DOUBLINGS, Record, Standing
from once.results import Outcome, Reason, Result, already_done, skipped
from once.routines.base import Routine
from once.text import one_line

#: Attempts of one call, if each ended for a reason outside its body.
_ATTEMPTS = 10


@dataclass(slots=True, kw_only=True)
class Claim:
    """A routine on its way to completion, by this process or by another."""

    routine: Routine
    here: Database
    lock: AdvisoryLock
    wait: Wait
    options: RunOptions
    #: Routines that this one comes after: of the same database, and of other databases.
    after: Sequence[Routine] = ()
    elsewhere: Sequence[Routine] = ()
    #: The record as of a moment ago.
    known: Record | None = None
    #: Attempts in a row of this call that failed.
    _failed: int = 0
    #: True if the record had changed at the last look.
    _has_changed: bool = False

    def settle(self) -> Result:
        """Look until the routine is done, failed, or given up.

        Where it is done, the lock may still be owned, for the next claim to take over.
        """
        try:
            result = self.wait.until(self._look)
        except TimedOut as error:
            waited = self.wait.seconds
            return skipped(self.routine, str(error), seconds=waited, reason=Reason.TIMED_OUT)
        finally:
            self.wait.siblings.leave()
        if not result.is_done:
            self.lock.release()  # before its waiters look
        if self.options.wait or result.outcome is not Outcome.SKIPPED:
            self.wait.siblings.tell(self.lock)
        return result

    def _look(self) -> Result | Retry:
        """Look at the lock and the record once, and attempt the routine if it is due."""
        try:
            answer = self._poll()
        except Error as error:
            # No body was called, so that no routine failed, whatever the error is.
            if not self.here.is_in_the_way(error):
                raise
            answer = Retry(partial(self.here.obstacle, error))
        finally:
            self.known = None
        if answer == AGAIN and self._has_changed:  # again, after a look at once
            self.lock.refuse_other_place()
            answer = Retry(f"the record of {self.routine.name} changes again and again")
        self._has_changed = answer == AGAIN
        if isinstance(answer, Retry):
            waits = self.options.wait or self._has_changed
            return answer if waits else skipped(self.routine, answer.message)
        return self._after_failure(answer) if answer.outcome is Outcome.FAILED else answer

    def _after_failure(self, failed: Result) -> Result | Retry:
        """Return whether another attempt of this call follows, after a pause."""
        if failed.reason is Reason.HINDERED:
            raise self._hindrance(failed)
        # Batches that were committed are worth as many attempts again.
        went_on = failed.attempt and failed.attempt.processed > failed.attempt.resumed
        self._failed = 1 if went_on else self._failed + 1
        if self._failed == _ATTEMPTS or not verdict.is_worth_repeating(failed, self.here):
            return failed
        self.wait.retreat(one_line(failed.error))
        return AGAIN

    def _hindrance(self, hindered: Result) -> Error:
        """Return the error of the database that kept an attempt, and not its body, from its end."""
        attempt, error = hindered.attempt, hindered.error
        is_settled = attempt is not None and attempt.state != State.RUNNING
        if hindered.is_final or not is_settled or not isinstance(error, Error):
            raise DatabaseUnavailable(f"{self.routine.name}: {hindered.message}") from error
        if attempt and attempt.processed > attempt.resumed:
            self.wait.answered()
        self.wait.worked(hindered.seconds)
        return error

    def _poll(self) -> Result | Retry:
        with self.wait.asking():
            # First the cheapest look. A waiter that was told of an end, or is to report, reads the
            # record as well, because a process that is done may keep the lock.
            is_taken = False
            if self.wait.has_paused and not self.wait.siblings.told_at:
                self.lock.refuse_own_thread()
                is_taken = not self.lock.is_worth_trying()
            if is_taken and not self.wait.is_report_due:
                return Retry(self._name_holder, is_holder=True)
            # Because time has passed, a routine that was backing off may be due.
            record = self.known if self.known and not self.known.retry_in else self._record()
            if record.standing not in self.options.due:
                return self._leave(record)
            may_be_needless = record.standing is Standing.DONE and self.options.is_of_items
            if may_be_needless and not failed_items.counts([self.routine]):
                return already_done(self.routine)
            # Because an attempt that runs may be a dead process's, the lock is asked for.
            if self._is_put_off(record) and not record.is_running:
                return verdict.put_off(self.routine, record)
            if is_taken:
                return Retry(self._name_holder, is_holder=True)
        # Before the lock, because their databases may be out of reach for long.
        for other in self.elsewhere:
            there = replace(self.wait, using=other.using)
            if undone := there.ask(partial(history.undone, [other])):
                return skipped(self.routine, verdict.too_early(undone))
        # First the connection for the work: a lock without one would only keep waiters waiting.
        self.here.connection.ensure_connection()
        refuse_left_open(self.here)
        try:
            return self._try(record)
        except NoConnection:
            raise
        except LockLost as error:
            return Retry(str(error))

    def _is_put_off(self, record: Record) -> bool:
        """True if a starting server leaves out what failed lately, before its own first attempt."""
        return self.options.respects_backoff and not self._failed and record.is_put_off

    def _record(self) -> Record:
        return history.read([self.routine], thoroughly=self.options.is_thorough)[self.routine.name]

    def _name_holder(self) -> str:
        return f"{self.routine.name} is run by {self.wait.holder()}"

    def _try(self, before: Record) -> Result | Retry:
        """Lock, claim and work; or find out what keeps this process from it."""
        if not self.lock.acquire(self.wait.answer_within):
            self.lock.refuse_own_thread()
            return Retry(self._name_holder, is_holder=True)
        self.wait.siblings.leave()
        if before.is_untried and not (self._has_changed or self.routine.renamed_from):
            ahead = history.first_attempt(before)
        else:
            ahead = self.lock.read(lambda: history.next_attempt(self.routine))
        if ahead.record.standing not in self.options.due:
            return AGAIN
        if self._is_put_off(ahead.record):
            return verdict.put_off(self.routine, ahead.record)
        if ahead.record.uncarried:
            return verdict.uncarried(self.routine, ahead.record)
        if doublings := min(ahead.record.lost_in_a_row, DOUBLINGS):
            self.lock.keep(conf.liveness_timeout() * 2**doublings)
        # From here on a signal waits, except where a body or a pause may be broken off: raised
        # inside a COMMIT it would leave the connection in a state that lies.
        with shutdown.deferred():
            return self._claim_next(ahead)

    def _claim_next(self, ahead: NextAttempt) -> Result | Retry:
        with self.lock.yielding(), self.here.answering(self.wait.answer_within):
            if ahead.record.tries:
                recorder.rehearse(self.routine.using)
            trigger = self.options.next_trigger(ahead.record.standing)
            by = (self.options.user, self.options.reason) if trigger in DECISIONS else ("", "")
            # Unless work comes first, or an error between statements could leave it running.
            had = ahead.record.has_running or ahead.record.is_batched or trigger in DECISIONS
            is_plain = self.here.takes_messages and self.routine.kind == "atomic"
            acts = is_plain and not (had or self.after or self.routine.done_if)
            attempt = recorder.begin(self.routine, ahead, trigger, *by, acts=acts)
        return AGAIN if attempt is None else self._carry_out(attempt, ahead)

    def _carry_out(self, attempt: Attempt, ahead: NextAttempt) -> Result | Retry:
        started = monotonic()
        is_announced = False
        problem: BaseException | None = None
        work = Work(
            routine=self.routine,
            attempt=attempt,
            here=self.here,
            lock=self.lock,
            wait=self.wait,
            may_repeat=self.options.repeats(self.routine),
            was_batched=ahead.record.is_batched,
        )
        try:
            if needless := self._prepare(attempt, ahead):
                return needless
            # Before the transaction, which a receiver's query could break.
            is_announced = True
            signals.attempt_started.send_robust(self.routine, attempt=attempt)
            refuse_left_open(self.here)
            work.carry_out(ahead.record.standing)
            attempt.state = State.SUCCEEDED
        except BaseException as error:  # recorded, then reported or raised again
            problem = exit_of_body(error) if isinstance(error, SystemExit) else error
            attempt.state = verdict.conclude(work, problem)
        if not is_announced and isinstance(problem, LockLost | AttemptLost | CannotFence):
            if isinstance(problem, NoConnection):
                raise problem
            return Retry(str(problem))
        result = verdict.ended(work, problem, monotonic() - started)
        if is_announced:
            signals.attempt_finished.send_robust(self.routine, result=result)
            if left := put_to_rest(self.here):  # else the next routine would be in it
                result = replace(result, message=f"{result.message} Afterwards: {left}".lstrip())
        if isinstance(problem, TimedOut) or not isinstance(problem, Exception | None):
            raise problem
        is_reset_only = attempt.trigger == Trigger.RESET != self.options.trigger
        return AGAIN if is_reset_only and result.is_done else result

    def _prepare(self, attempt: Attempt, ahead: NextAttempt) -> Result | Retry | None:
        """Fence the predecessors, then read again; end an attempt that has nothing to do."""
        self.lock.check()  # it may have made way for the claim
        self._fence(ahead, attempt)
        # Only now: a predecessor may have committed until it was fenced.
        if ahead.record.has_running and not self._is_due_still(ahead.record):
            why = "There was nothing left to do, or to try by itself."
            answer: Result | Retry = AGAIN
        # A failover after the claim loses the claim together with a predecessor's completion.
        # Only an earlier failover leaves the claim: therefore ask again.
        elif undone := history.undone(self.after):
            why = verdict.too_early(undone)
            answer = skipped(self.routine, why)
        else:
            return None
        recorder.close(attempt, State.INTERRUPTED, why, body_not_started=True)
        return answer

    def _is_due_still(self, before: Record) -> bool:
        """True if the same is to be done as before the predecessors were fenced."""
        now = self._record().standing
        is_other = (now is Standing.EARLIER) != (before.standing is Standing.EARLIER)
        return now in self.options.due and not is_other

    def _fence(self, ahead: NextAttempt, attempt: Attempt) -> None:
        """Take from every predecessor the right to commit; final, also for a frozen one."""
        for predecessor in ahead.predecessors:
            while True:
                try:
                    with self.lock.yielding(), self.here.answering():
                        ended = recorder.close(predecessor, State.LOST, "A successor took over.")
                except CannotFence as error:
                    if not self.options.wait:
                        raise
                    self.lock.ping()
                    self.wait.pause(str(error))
                else:
                    break
            predecessor.state = ended
            if ended is State.LOST:
                signals.attempt_lost.send_robust(
                    self.routine, attempt=predecessor, successor=attempt
                )

    def _leave(self, record: Record) -> Result:
        """Return the result if there is nothing to do for this process."""
        if record.standing in (Standing.HELD, Standing.PAUSED, Standing.OPEN):
            return verdict.left(self.routine, record)
        newer = "left to a newer version or value of it, which was begun and is not done yet"
        self.wait.end(newer if record.is_overtaken else "")
        return Result(
            routine=self.routine,
            outcome=Outcome.WAITED,
            seconds=self.wait.seconds,
            reason=Reason.OVERTAKEN if record.is_overtaken else None,
        )
