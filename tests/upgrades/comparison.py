"""What a database holds, and how it differs from what it is to hold."""

from collections import Counter
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

__all__ = ["NOTHING", "Row", "Rows", "Snapshot", "differences"]

Row = dict[str, Any]
Rows = list[tuple[Any, ...]]

#: States of attempts, where one process was killed and nothing else went wrong.
_ENDS = {"succeeded", "lost"}
#: The routine whose effects commit by themselves, so that each may come twice.
_EXTERNAL = "notify"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a database holds."""

    #: Table, kind, name and definition of all that a table consists of.
    schema: Rows
    #: By table of the app, each row with the names of its columns.
    rows: dict[str, list[Row]]
    #: Name of each applied migration, content type and permission.
    named: Rows
    #: Routine, version and scope key, in their order.
    completions: Rows
    #: Routine, number and state.
    attempts: Rows
    #: Routine, item, and the release of that, or 0, in their order.
    effects: Rows


NOTHING = Snapshot(schema=[], rows={}, named=[], completions=[], attempts=[], effects=[])


def differences(
    found: Snapshot,
    old: int,
    start: Snapshot,
    path: Snapshot,
    between: Snapshot = NOTHING,
    *,
    is_repeated: bool = False,
) -> list[str]:
    """Compare a database with the path that it should have gone.

    Args:
        found: what it holds after its upgrade.
        old: the number of the release that it comes from.
        start: what it held before, but the rows of that release.
        path: what the database of the later release held before rows of that came.
        between: the same of a release whose upgrade was begun, and not ended.
        is_repeated: True if an effect may be there twice, because a migration was undone.

    """
    rows = {
        table: [row for row in rows if row.get("origin", 0) <= old]
        for table, rows in path.rows.items()
    }
    completions, effects = _completions(start, path), _effects(start, path, old)
    # What a release in between did is there, or not.
    further = {*_completions(between, path), *between.effects} - completions - effects
    return [
        *_diff("schema", found.schema, path.schema),
        *_diff("tables", sorted(found.rows), sorted(rows)),
        *(line for table in rows for line in _diff(table, found.rows.get(table, []), rows[table])),
        *_diff("names", found.named, path.named),
        *_diff("completions", sorted({*found.completions} - further), sorted(completions)),
        *_diff("effects", sorted({*found.effects} - further), sorted(effects)),
        *_wrong_attempts(found),
        *([] if is_repeated else _repeated(found)),
    ]


def _diff(what: str, found: list[Any], expected: list[Any]) -> list[str]:
    lines = unified_diff([*map(str, expected)], [*map(str, found)], "path", what, n=0, lineterm="")
    return [*lines]


def _completions(start: Snapshot, path: Snapshot) -> set[tuple[Any, ...]]:
    """Return those of the completions from before that stay, and of each routine the last one."""
    last = {each[0]: each for each in path.completions}
    return {*({*start.completions} & {*path.completions}), *last.values()}


def _effects(start: Snapshot, path: Snapshot, old: int) -> set[tuple[Any, ...]]:
    """Return the effects from before, those on rows that are there, and others of the release."""
    last = {each[0]: each for each in path.effects if not each[2]}
    return {
        *start.effects,
        *(each for each in path.effects if 0 < each[2] <= old),
        *last.values(),
    }


def _wrong_attempts(found: Snapshot) -> list[str]:
    """Return attempts that did not end, and losses of more than the one that was killed."""
    wrong = [f"{each} did not end well" for each in found.attempts if each[2] not in _ENDS]
    lost = [each for each in found.attempts if each[2] == "lost"]
    return wrong + [f"{lost} are lost by one kill"] * (len(lost) > 1)


def _repeated(found: Snapshot) -> list[str]:
    counts = Counter(effect for effect in found.effects if effect[0] != _EXTERNAL)
    return [f"{effect} is there {n} times" for effect, n in counts.items() if n > 1]
