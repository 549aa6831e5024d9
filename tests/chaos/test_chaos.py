"""A short randomised run finds nothing, and its observer finds what it is there to find."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.observer import Attempt, Facts, Freeze, Start, judge
from tests.chaos.plan import Plan, Routine, new_plan
from tests.project import ROOT
from tests.servers import missing

SHORT = ("--seconds=1", "--seed=7", "--events=10", "--processes=5")

ATOMIC = Routine(
    name="plant.atomic",
    kind="atomic",
    retry=True,
    scope="database",
    after=(),
    versions=(1, 2),
    items=2,
    batch_size=1,
    is_queryset=False,
    seconds=0.0,
    fails=False,
)
BATCHED = replace(ATOMIC, name="plant.batched", kind="batched", scope="content")
EXTERNAL = replace(ATOMIC, name="plant.external", kind="external", after=("plant.atomic",))
ONCE = replace(ATOMIC, name="plant.once", kind="external", retry=False)
PLAN = Plan(name="test", routines=(ATOMIC, BATCHED, EXTERNAL, ONCE), contents=("a", "b"), events=())


def start(routine: Routine, attempt: int, version: int = 2, label: str = "") -> Start:
    return Start(
        routine=routine.name,
        version=version,
        label=label,
        release=version - 1,
        attempt=attempt,
        key="key",
        pid=100 + attempt,
        time=float(attempt),
        seen=[["plant.atomic", version]] if routine.after else [],
    )


def right() -> Facts:
    """What is there when all went well: every release ran, with a takeover of the external one."""
    facts = Facts()
    for routine in (ATOMIC, BATCHED):
        for version, label in ((1, "a"), (2, "b")):
            own = label if routine is BATCHED else ""
            key = f"sha of {own}" if own else ""
            facts.completions.add((routine.name, version, key))
            facts.effects += [(routine.name, version, own, item) for item in (1, 2)]
            facts.starts.append(start(routine, version, version, own))
            facts.attempts.append(Attempt(routine.name, version, version, key, "succeeded"))
    for number, state in ((1, "lost"), (2, "succeeded")):
        facts.starts.append(start(EXTERNAL, number))
        facts.attempts.append(Attempt(EXTERNAL.name, number, 2, "", state))
    facts.completions.add((EXTERNAL.name, 2, ""))
    facts.starts.append(start(ONCE, 1))
    facts.attempts.append(Attempt(ONCE.name, 1, 2, "", "lost", retry=False))  # and so it is held
    return facts


def test_observer_is_content_with_what_was_promised() -> None:
    assert judge(PLAN, right(), right().completions) == []


def double_effect(facts: Facts) -> None:
    facts.effects.append((ATOMIC.name, 2, "", 1))


def double_item(facts: Facts) -> None:
    facts.effects.append((BATCHED.name, 2, "b", 2))


def effect_without_record(facts: Facts) -> None:
    facts.completions.remove((ATOMIC.name, 1, ""))


def record_without_effect(facts: Facts) -> None:
    facts.effects = [row for row in facts.effects if row[:2] != (ATOMIC.name, 1)]


def missing_item(facts: Facts) -> None:
    facts.effects.remove((BATCHED.name, 1, "a", 2))


def older_token(facts: Facts) -> None:
    facts.starts.append(start(EXTERNAL, 1))


def older_version(facts: Facts) -> None:
    facts.starts.append(start(EXTERNAL, 3, version=1))


def other_key(facts: Facts) -> None:
    facts.starts.append(replace(start(EXTERNAL, 3), key="other"))


def second_try(facts: Facts) -> None:
    facts.starts.append(start(ONCE, 2))


def no_body(facts: Facts) -> None:
    facts.starts = [one for one in facts.starts if one.routine != EXTERNAL.name]


def out_of_order(facts: Facts) -> None:
    facts.starts.append(replace(start(EXTERNAL, 3), seen=[["plant.atomic", 1]]))


def superseded(facts: Facts) -> None:
    facts.attempts.insert(2, Attempt(ATOMIC.name, 3, 1, "", "succeeded"))


def still_running(facts: Facts) -> None:
    facts.attempts.append(Attempt(ONCE.name, 2, 2, "", "running"))


def never_done(facts: Facts) -> None:
    facts.completions.remove((EXTERNAL.name, 2, ""))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (double_effect, "('plant.atomic', 2, '', 1) exists 2 times"),
        (double_item, "('plant.batched', 2, 'b', 2) exists 2 times"),
        (effect_without_record, "the completion of ('plant.atomic', 1, '') disappeared"),
        (effect_without_record, "atomic plant.atomic v1: completed [], with effects {'': 2}"),
        (record_without_effect, "atomic plant.atomic v1: completed [''], with effects {}"),
        (missing_item, "batched plant.batched v1: completed ['sha of a'], with effects {'a': 1}"),
        (older_token, "external plant.external: Start("),
        (older_version, "version=1, label='', release=0, attempt=3"),
        (other_key, "keys ['key', 'other']"),
        (second_try, "retry=False, and attempts [1, 2] began"),
        (no_body, "plant.external v2  is completed and its body never began"),
        (out_of_order, "plant.external began before plant.atomic v2 was done"),
        (superseded, "superseded: Attempt(routine='plant.atomic', number=3, version=1"),
        (still_running, "still running: Attempt(routine='plant.once', number=2"),
        (never_done, "plant.external v2  is neither completed nor held"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_observer_sees(spoil: Callable[[Facts], None], message: str) -> None:
    facts = right()
    spoil(facts)
    assert any(message in found for found in judge(PLAN, facts, right().completions))


def test_observer_excuses_the_older_token_of_who_was_just_frozen() -> None:
    facts = right()
    older_token(facts)
    facts.frozen.append(Freeze(101, 0.9))
    assert judge(PLAN, facts, right().completions) == []


def test_seed_determines_the_plan() -> None:
    assert new_plan(7, 3, "pgbouncer", 2.0) == new_plan(7, 3, "pgbouncer", 2.0)
    assert new_plan(7, 3, "pgbouncer", 2.0) != new_plan(7, 4, "pgbouncer", 2.0)


@pytest.mark.parametrize("database", ["postgresql", "pgbouncer", "sqlite"])
def test_short_run_finds_nothing(database: str) -> None:
    if database == "pgbouncer" and not shutil.which(
        "pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin"
    ):
        missing("pgbouncer")
    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *SHORT, f"--database={database}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "violations 0" in run.stdout
