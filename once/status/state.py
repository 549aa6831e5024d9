"""The status of a routine, for people and for programs."""

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext_noop

from once.models import BODILESS
from once.results import Result
from once.text import one_line

SCHEMA = 1


class RoutineState(enum.StrEnum):
    """The state of a routine, under its name everywhere. First those that ask for a person."""

    FAILED = gettext_noop("failed")
    HELD = gettext_noop("held")
    PAUSED = gettext_noop("paused")
    BLOCKED = gettext_noop("blocked")
    RUNNING = gettext_noop("running")
    PENDING = gettext_noop("pending")
    COMPLETED = gettext_noop("completed")
    SUPERSEDED = gettext_noop("superseded")
    RENAMED = gettext_noop("renamed")
    UNKNOWN = gettext_noop("unknown")


_SETTLED = (
    RoutineState.COMPLETED,
    RoutineState.SUPERSEDED,
    RoutineState.RENAMED,
    RoutineState.UNKNOWN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A routine as JSON shows it. Times are by the database's clock."""

    name: str
    #: Version in this code; ``None`` if this code has no such routine.
    version: int | None = None
    #: The highest one that is recorded.
    recorded_version: int | None = None
    scope: str | None = None
    #: ``atomic``, ``batched``, ``external``, ``process``; ``call`` for what ``once call`` ran.
    kind: str | None = None
    #: The role of the processes that run it; ``None`` for any process.
    role: str | None = None
    state: RoutineState
    database: str | None = None
    #: Attempts at this version, and for this release or content of files.
    attempts: int = 0
    #: Of the last attempt, or of the running attempt, as the fields below.
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_seconds: float | None = None
    host: str | None = None
    pid: int | None = None
    #: The caller of that attempt, ``found`` or a person's decision, with the person and the reason.
    trigger: str | None = None
    user: str | None = None
    reason: str | None = None
    #: Items of a batched routine, by all attempts at this completion.
    processed: int | None = None
    total: int | None = None
    #: Items a second of the last attempt, and what is left by that.
    rate: float | None = None
    seconds_left: float | None = None
    #: Items that failed, and behind which it went on.
    failed_items: int = 0
    #: The pace of a batched routine that holds: ``batch_size``, ``rest`` and ``batch_seconds``.
    pace: dict[str, float | None] | None = None
    #: The person that set it, where it is not as the code declares it.
    set_by: str | None = None
    #: Until when starting servers leave it out after a failure.
    retry_at: datetime | None = None
    #: The traceback of the last attempt, where that failed.
    error: str | None = None
    #: Name of the routine that must be done before, and keeps this one from being the next to run.
    waits_for: str | None = None
    #: Advice for a person: the cause and the next step.
    message: str | None = None
    #: The release, or the digest of the files, of this state; empty in scope ``database``.
    scope_key: str | None = None
    #: The name that a newer release gave it, if this is an old one.
    renamed_to: str | None = None
    #: Its own old names, under which a record stands that is not carried over yet.
    old_names: Sequence[str] = ()
    #: The throttle that the running attempt waits for, and the seconds that it says.
    throttled: str | None = None
    #: Seconds that the running attempt has taken until now.
    elapsed_seconds: float | None = None
    #: True if a person paused it, also while it runs, and where it is completed.
    paused: bool = False
    #: True if a person wants it run now, and no attempt began since.
    wanted: bool = False
    #: True if a ``once work`` that takes it has looked lately.
    has_worker: bool = False

    @property
    def is_settled(self) -> bool:
        """True if it asks for no run: done, not for this code, in memory, or a command's."""
        return self.state in _SETTLED or self.kind in ("process", "call")

    @property
    def is_cut_off(self) -> bool:
        """True if the last attempt called its body, and has no end."""
        has_end = self.duration_seconds is not None or self.trigger in BODILESS
        return self.started_at is not None and not has_end

    @property
    def place(self) -> str:
        """Host and process of the last attempt."""
        return f"{self.host} (pid {self.pid})"

    @property
    def error_line(self) -> str:
        """The error without its traceback."""
        return (self.error or "").partition("\n")[0]

    @property
    def progress(self) -> tuple[int, int | None, float | None, float | None] | None:
        """Progress of a batched routine that is not done: items, total, rate, seconds left."""
        if self.processed is None or self.state is RoutineState.COMPLETED:
            return None
        return self.processed, self.total, self.rate, self.seconds_left

    @property
    def has_other_version(self) -> bool:
        """True if the version that is recorded is not that of this code."""
        return bool(self.recorded_version and self.version not in (None, self.recorded_version))


def to_json(
    listed: Sequence[Status],
    results: Sequence[Result] | None = None,
    *,
    lacking: Mapping[str, Sequence[str]] | None = None,
    unread: Mapping[str, Exception] | None = None,
) -> dict[str, Any]:
    """Return the object that ``--json`` prints; its keys are a contract.

    Args:
        listed: the routines to show.
        results: what a run did about them.
        lacking: unapplied migrations by alias, where they were looked for.
        unread: why a database could not be asked for them, by alias.

    """
    rows = [asdict(status) for status in listed]
    further: dict[str, object] = {}
    if results is not None:
        is_done = all(result.is_done for result in results)
        outcomes = {result.routine.name: str(result.outcome) for result in results}
        for row in rows:
            row["outcome"] = outcomes.get(row["name"])
    else:
        is_done = all(status.is_settled for status in listed) and not lacking and not unread
    if lacking is not None:
        reasons = {using: one_line(error) for using, error in (unread or {}).items()}
        further = {"unapplied": lacking, "unread": reasons}
    return {
        "schema": SCHEMA,
        "done": is_done,
        "counts": dict(Counter(str(status.state) for status in listed)),
        **further,
        "routines": rows,
    }
