"""Copied into each release to be its ``routines.py``: declares what ``release.json`` says.

Bodies leave two traces that ``once`` does not write: rows in their own transaction, and a line in a
file, on disk before the body goes on, which no transaction takes back.
"""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.db import connections

from once import Run, content, routine
from tests.shop.models import Counted

_RELEASE = json.loads(Path(__file__).with_name("release.json").read_text())


def _begin(one: dict[str, Any], run: Run) -> None:
    """Note that a body begins, and what it sees of the routines that come before."""
    seen: list[list[Any]] = []
    if one["after"]:
        marks = ", ".join(["%s"] * len(one["after"]))
        with connections[run.using].cursor() as cursor:
            cursor.execute(
                f"SELECT routine, version FROM once_completion WHERE routine IN ({marks})",
                one["after"],
            )
            seen = [list(row) for row in cursor.fetchall()]
    line = {
        "routine": one["name"],
        "version": one["version"],
        "label": one["label"],
        "release": _RELEASE["number"],
        "attempt": run.attempt,
        "key": run.key,
        "pid": os.getpid(),
        "time": time.time(),
        "seen": seen,
    }
    file = os.open(os.environ["CHAOS_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (json.dumps(line) + "\n").encode())
    os.fsync(file)
    os.close(file)


def _act(one: dict[str, Any], run: Run, items: Iterable[int]) -> None:
    _begin(one, run)
    time.sleep(one["seconds"] / 2)
    if one["kind"] != "external":
        with connections[run.using].cursor() as cursor:
            for item in items:
                cursor.execute(
                    "INSERT INTO chaos_effect (routine, version, label, item, attempt) "
                    "VALUES (%s, %s, %s, %s, %s)",
                    [one["name"], one["version"], one["label"], item, run.attempt],
                )
    time.sleep(one["seconds"] / 2)
    if one["fails"] and run.attempt == 1:
        raise ValueError("as planned")


def _declare(one: dict[str, Any]) -> None:
    options: dict[str, Any] = {key: one[key] for key in ("name", "version", "after", "retry")}
    options["scope"] = content("seed.txt") if one["scope"] == "content" else one["scope"]
    if one["kind"] != "batched":

        @routine(atomic=one["kind"] == "atomic", **options)
        def body(run: Run) -> None:
            _act(one, run, range(1, one["items"] + 1))

        return

    def over() -> Iterable[Any]:
        if one["is_queryset"]:
            return Counted.objects.filter(pk__lte=one["items"])
        return range(1, one["items"] + 1)

    @routine(over=over, batch_size=one["batch_size"], **options)
    def batch(items: list[Any], run: Run) -> None:
        _act(one, run, [item if isinstance(item, int) else item.pk for item in items])


for _one in _RELEASE["routines"]:
    _declare(_one)
