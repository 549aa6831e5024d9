"""Reads how routines stand in one database, by as many queries for one routine as for thousands."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db.models import Max

from once.databases import database
from once.models import BODILESS, Attempt, Completion, Now, State
from once.record import failed_items, gates, history, queries, wishes, workers
from once.record.advice import describe, earlier, hint, takes_over, wanted
from once.record.standing import Standing
from once.routines.base import Routine
from once.routines.names import CALL, RESERVED, TOMBSTONE
from once.status.called import called
from once.status.state import RoutineState, Status
from once.words import gettext


def described(routine: Routine) -> dict[str, Any]:
    """Return the part of a status that the code alone says."""
    return {
        "name": routine.name,
        "version": routine.version,
        "scope": str(routine.scope),
        "kind": "call" if routine.name.startswith(CALL) else routine.kind,
        "role": routine.role or None,
    }


class Reading:
    """The statuses of a database: of its routines of this code, and of the record alone."""

    def __init__(self, using: str, routines: list[Routine]) -> None:
        self.database = database(using)
        self.records = history.read(routines, thoroughly=True)
        self.completions = history.recorded(using)
        #: By name, the last attempt of all, and the last at the very completion of this code.
        self.last = last_attempts(using)
        #: Commands of ``once call``, in the scope of the last call.
        names = {name for name in (*self.last, *self.completions) if name.startswith(CALL)}
        self.called = [
            called(self.last.get(name) or self.completions[name][-1], using)
            for name in sorted(names - self.records.keys())
        ]
        self.records |= history.read(self.called, thoroughly=True)
        self.own = history.attempts(using, {n: each.own_number for n, each in self.records.items()})
        #: By the database's clock, where it knows an attempt.
        self.now: datetime | None = None
        if self.last:
            with self.database.statements():
                self.now = self.database.aware(
                    Attempt.objects.using(using).values_list(Now(), flat=True)[0]
                )
        is_open = {n for n, each in self.records.items() if each.standing is Standing.OPEN}
        asked = {name for name, record in self.records.items() if record.has_running}
        asked |= {name for name, attempt in self.last.items() if attempt.state == State.RUNNING}
        if self.database.is_server:  # elsewhere there is one lock for all routines
            asked |= is_open
        #: Names of routines whose locks are taken, each with whether by a process of once.
        self.taken = self.database.locked(asked) if asked else {}
        #: Present names by old names: those that a tombstone has, and those that this code gives.
        self.renamed = {old: each.name for each in routines for old in each.renamed_from}
        buried = [name for name, attempt in self.last.items() if attempt.version == TOMBSTONE]
        if buried:
            self.renamed |= queries.renamed(using, buried)
        with self.database.statements():
            self.wishes = wishes.last(using, self.records)
            self.roles = workers.present(using)
        self.failed_items = failed_items.counts(routines)
        self.held = history.held(using, routines, self.records, self.taken)
        self.failures = history.last_failures(using, self.held) if self.held else {}
        self.behind = gates.behind(using) if is_open else gates.Behind(using)

    def routine(self, routine: Routine) -> Status:
        """Return the status of a routine of this code."""
        name, record = routine.name, self.records[routine.name]
        names = (name, *record.uncarried)
        done = [row for each in names for row in self.completions.get(each, [])]
        same = [row for row in done if row.scope_key == routine.scope_key]
        # An attempt that runs may be at another version: the two exclude each other.
        attempt = self.last.get(name) if record.is_running else self.own.get(name)
        if routine in self.held:
            # Not of one that came after it, and was not allowed to do anything.
            attempt = self.failures.get(name) or attempt
            what = f"{describe(attempt)}. " if attempt else ""
            state, message = RoutineState.HELD, f"{what}{hint(name, is_gone=record.is_gone)}"
            if name in self.taken:
                message = f"{message} {self._obstacle(name)}"
            message = f"{message} {self._waits(name)}".rstrip()
        elif record.standing is Standing.PAUSED:
            state, message = self._paused(routine, attempt)
        elif record.standing is Standing.DONE:
            failed = self.failed_items.get(name)
            message = failed_items.explain(name, failed) if failed else self._waits(name)
            state = RoutineState.COMPLETED
        elif record.standing is Standing.SUPERSEDED:
            state, message = RoutineState.SUPERSEDED, self._given_up(name)
        elif record.standing is Standing.EARLIER:
            state = RoutineState.SUPERSEDED
            message = earlier(name, is_overtaken=record.is_overtaken)
            if record.is_overtaken:
                done = same = []  # because nothing later is recorded
        else:
            state, message = self._undone(routine, attempt)
        details = described(routine) | {"retry_at": record.retry_at, "attempts": record.tries}
        details |= {"scope_key": routine.scope_key, "failed_items": self.failed_items.get(name, 0)}
        details |= self._paced(routine) | {"wanted": record.is_wanted}
        details["paused"] = self._is_paused(name)
        details["has_worker"] = bool(self.roles & {routine.role} if routine.role else self.roles)
        if record.is_wanted:
            message = f"{wanted()} {message or ''}".rstrip()
        if record.uncarried:
            old = [each for each in record.uncarried if each in {**self.last, **self.completions}]
            details["old_names"] = old
            message = message or self._uncarried(old)
        elif present := self.renamed.get(name):
            details["renamed_to"] = present
            done = self.completions.get(present, [])
        return self._status(details, state, message, attempt, (same or done)[-1:])

    def _waits(self, name: str) -> str:
        """Say that a pause outlives a completion, so that a higher version waits; or nothing."""
        if not self._is_paused(name):
            return ""
        return " ".join([gettext("A higher version waits."), wishes.paused_by(self.wishes[name])])

    def _is_paused(self, name: str) -> bool:
        return name in self.wishes and self.wishes[name].is_paused

    def _paused(self, routine: Routine, attempt: Attempt | None) -> tuple[RoutineState, str]:
        name = routine.name
        message = wishes.paused_by(self.wishes[name]) if name in self.wishes else ""
        state, _ = self._tried(name, attempt)
        if state is not RoutineState.RUNNING:
            return RoutineState.PAUSED, message
        stops = gettext("It stops after its body.")
        if routine.kind == "batched":
            stops = gettext("It stops after the batch in hand.")
        return state, f"{stops} {message}"

    def _paced(self, routine: Routine) -> dict[str, Any]:
        if routine.kind != "batched":
            return {}
        wish = self.wishes.get(routine.name)
        pace = wishes.pace(routine, wish)
        by = wish.user if wish and pace != wishes.pace(routine, None) else None
        return {"pace": asdict(pace), "set_by": by}

    def strangers(self) -> list[Status]:
        """Return what is not in this code: commands of ``once call``, and unknown routines."""
        # Not a tombstone under whose name nothing was ever recorded.
        old = {
            name
            for name in self.renamed.keys() & self.last.keys()
            if (self.last[name].version, self.last[name].number) != (TOMBSTONE, 1)
        }
        unknown = sorted((self.completions.keys() | old) - self.records.keys())
        return [self.routine(each) for each in self.called] + [
            self._stranger(name) for name in unknown if not name.startswith(RESERVED)
        ]

    def _stranger(self, name: str) -> Status:
        attempt, done = self.last.get(name), self.completions.get(name, [])
        details = {"name": name, "attempts": attempt.number if attempt else 0}
        if present := self.renamed.get(name):
            details["renamed_to"] = present
            message = gettext("Its name is {} now.").format(present)
            return self._status(details, RoutineState.RENAMED, message, attempt, done[-1:])
        ours = [old for old, at in self.renamed.items() if at == name and old in self.records]
        message = gettext(
            "Not in this code. Its record is left alone; if no release has it any more, "
            "`manage.py once forget {}` removes that."
        ).format(name)
        if ours:
            later = gettext(
                "Another release has {} by this name. Its record is left to that release."
            )
            message = later.format(*ours)
        return self._status(details, RoutineState.UNKNOWN, message, attempt, done[-1:])

    def _given_up(self, name: str) -> str:
        """Say that another release renamed a routine, if one did."""
        if (present := self.renamed.get(name)) is None:
            return ""
        return gettext(
            "Another release renamed it to {name}, so that this code never runs it. If this code "
            'is the newer one, keep that name: @routine(name="{name}").'
        ).format(name=present)

    def _uncarried(self, names: Sequence[str]) -> str:
        """Say under which old names a record stands that is to be carried over; or nothing."""
        if not names:
            return ""
        taken = [name for name in names if self.taken.get(name)]
        until = ""
        if taken:
            until = gettext(", once {} is done with that").format(self.database.holder(taken[0]))
        return gettext(
            "Its record stands under its old name {}. The next `manage.py once run` or server "
            "start carries it over{}."
        ).format(", ".join(names), until)

    def _undone(self, routine: Routine, attempt: Attempt | None) -> tuple[RoutineState, str]:
        name = routine.name
        state, message = self._tried(name, attempt)
        if (missing := self.behind.of(routine)) and state is not RoutineState.RUNNING:
            lacks = ", ".join(missing)
            message = gettext("Unapplied migrations: {}. Run `manage.py once run --migrate`.")
            return RoutineState.BLOCKED, message.format(lacks)
        if (gate := self.behind.gates.get(name)) and not message:
            message = gettext("Migration {} waits for it.").format(gate)
        return state, message

    def _tried(self, name: str, attempt: Attempt | None) -> tuple[RoutineState, str]:
        """Return the state by the last attempt and by which locks are taken."""
        last = attempt.state if attempt else ""
        # Because any program may take the lock, only that of once says that the attempt lives.
        if last == State.RUNNING and self.taken.get(name):
            return RoutineState.RUNNING, ""
        state = RoutineState.FAILED if last == State.FAILED else RoutineState.PENDING
        if name in self.taken:
            return state, self._obstacle(name)
        # A success that is not recorded is a person's decision, or another version's.
        if attempt is None or last in (State.FAILED, State.SUCCEEDED):
            return state, ""
        return state, f"{describe(attempt)}. {takes_over()}"

    def _obstacle(self, name: str) -> str:
        holder = self.database.holder(name) or gettext("another process")
        return gettext("Its lock is taken by {}.").format(holder)

    def _status(
        self,
        details: dict[str, Any],
        state: RoutineState,
        message: str,
        attempt: Attempt | None,
        done: list[Completion],
    ) -> Status:
        if done:
            details["recorded_version"] = done[0].version
            details["completed_at"] = self.database.aware(done[0].completed_at)
        if attempt:
            details |= self._ran(attempt, is_running=state is RoutineState.RUNNING)
            if state in (RoutineState.FAILED, RoutineState.HELD):
                details["error"] = attempt.error or None
        return Status(state=state, database=self.database.using, message=message or None, **details)

    def _ran(self, attempt: Attempt, *, is_running: bool) -> dict[str, Any]:
        """Return when, where and for how long an attempt ran, and how far it came."""
        started = self.database.aware(attempt.started_at)
        finished = attempt.finished_at and self.database.aware(attempt.finished_at)
        # A clock may have been set back meanwhile.
        seconds = max(0.0, ((finished or self.now or started) - started).total_seconds())
        has_taken = finished and attempt.trigger not in BODILESS
        ran = {
            "started_at": started,
            "duration_seconds": seconds if has_taken else None,
            "elapsed_seconds": round(seconds, 1) if is_running else None,
            "host": attempt.host,
            "pid": attempt.pid,
            "trigger": attempt.trigger,
            "user": attempt.user or None,
            "reason": attempt.reason or None,
        }
        if not attempt.cursor:
            return ran
        ran["throttled"] = (is_running and attempt.throttled) or None
        return ran | progress(attempt, seconds, is_running=is_running)


def last_attempts(using: str) -> dict[str, Attempt]:
    """Return the last attempt at each routine that a database knows, by name."""
    rows = Attempt.objects.using(using).values_list("routine").annotate(Max("number"))
    with database(using).statements():
        numbers = dict(rows)
    return history.attempts(using, numbers)


def progress(attempt: Attempt, seconds: float, *, is_running: bool = True) -> dict[str, Any]:
    """Return how far a batched attempt is, and how fast it goes."""
    total = attempt.total
    if total is not None:
        total = max(total, attempt.processed)  # rows may appear meanwhile
    own = attempt.processed - attempt.resumed
    rate = own / seconds if own > 0 and seconds > 0 else None
    seconds_left = None
    if rate and total is not None and is_running:
        seconds_left = round((total - attempt.processed) / rate, 1)
    return {
        "processed": attempt.processed,
        "total": total,
        "rate": rate and round(rate, 3),
        "seconds_left": seconds_left,
    }
