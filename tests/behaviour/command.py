"""The command as tests call it, and routines that do not succeed."""

import json
from collections.abc import Sequence
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError

from once import Routine
from tests.support import run, seed

#: Of each routine, in this order: programs rely on it.
KEYS = [
    *("name", "version", "recorded_version", "scope", "kind", "role"),
    *("state", "database", "attempts"),
    *("started_at", "completed_at", "duration_seconds", "host", "pid"),
    *("trigger", "user", "reason", "processed", "total"),
    *("rate", "seconds_left", "failed_items", "pace", "set_by", "retry_at", "error"),
    *("waits_for", "message", "scope_key", "renamed_to", "old_names", "throttled"),
    *("elapsed_seconds", "paused", "wanted", "has_worker"),
]


class Answer:
    """What a call of the command gave: its exit code, streams, and message."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        out, err = StringIO(), StringIO()
        self.code, self.message = 0, ""
        try:
            call_command("once", *arguments, stdout=out, stderr=err, no_color=True, **options)
        except CommandError as error:
            self.code, self.message = error.returncode, str(error)
        self.out, self.err = out.getvalue(), err.getvalue()

    @property
    def json(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.out)
        return shown


def failing(using: str, name: str = "shop.bad", **options: Any) -> Routine:
    def body() -> None:
        raise LookupError("no such currency")

    return seed(using, name, function=body, **options)


def failing_at(using: str, fails_at: int, name: str = "shop.fill", **options: Any) -> Routine:
    """Five items in batches of two; it fails at one of them."""

    def body(batch: list[int]) -> None:
        if fails_at in batch:
            raise LookupError("no such item")

    return seed(using, name, function=body, over=lambda: [1, 2, 3, 4, 5], batch_size=2, **options)


def held(using: str, name: str = "shop.held") -> Routine:
    """A routine that failed and may not be tried again."""
    routine = failing(using, name, atomic=False, retry=False)
    run(routine)
    return routine


class Terminal(StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


def reset(*arguments: str) -> Answer:
    return Answer("reset", "--no-input", *arguments)


def call(using: str, *options: str, key: str = "prices", arguments: Sequence[str] = ()) -> Answer:
    """Call the command that leaves an effect."""
    command = [key, "leave", "cheap", "--database", using, *arguments]
    return Answer("call", "--database", using, *options, *command)
