"""Signals near a COMMIT, at random times: what a process says is what the database has."""

import json
import sys
from collections import Counter
from typing import Any

import pytest

from tests.project import Project
from tests.waiting import PATIENCE

#: What the times are drawn from; the moments that they hit differ from run to run.
SEED = 7
#: Processes without a signal, and processes with one.
UNDISTURBED, DISTURBED = 12, 200

#: Of each pair, the first has the signal come; the second is what its process does next.
ROUTINES = f"""
    from tests.shop.late import arm


    def atomic(number):
        effect(f"r{{number}}")
        arm()


    def batch(number, item):
        effect(f"r{{number}} {{item}}")
        if item == 2:
            arm()


    def declare(number):
        name = f"r{{number}}"
        if number % 3 == 2:
            options = {{"over": lambda: [1, 2], "batch_size": 1, "name": name}}
            routine(lambda items: batch(number, *items), **options)
        else:
            routine(lambda: atomic(number), name=name, atomic=number % 3 == 0)
        routine(lambda: effect(f"n{{number}}"), name=f"n{{number}}")


    for number in range({UNDISTURBED + DISTURBED}):
        declare(number)
"""


class Seen:
    """What the database has of all routines."""

    def __init__(self, project: Project) -> None:
        self.completions = {*project.completions()}
        self.effects = Counter(name.partition(" ")[0] for name in project.effects())
        attempts = "SELECT routine, max(processed) FROM once_attempt GROUP BY routine"
        self.processed = dict(project.rows(attempts))
        self.succeeded = Counter(
            name for name, _, state in project.attempts() if state == "succeeded"
        )

    def is_whole(self, number: int) -> bool:
        """True if nothing of a pair is there by half."""
        pair = first, second = f"r{number}", f"n{number}"
        expected = {
            "atomic": first in self.completions,
            "batched": self.processed[first],
            "external": 1,  # its body came to its end
        }
        return (
            self.effects[first] == expected[kind_of(number)]
            and self.effects[second] == (second in self.completions)
            and all(self.succeeded[name] == (name in self.completions) for name in pair)
        )


def is_true(report: dict[str, Any], seen: Seen) -> bool:
    """True if a process said what the database has."""
    number, said = report["number"], report["said"]
    done = [name for name, word in said if word == "OK"]
    is_consistent = len(done) == len({*done})  # what is done is not done again
    claims = {name: word == "OK" for name, word in said}
    if report["code"] == 0:  # which speaks of both, also where the signal broke off the printing
        is_consistent = is_consistent and all(claims.values())
        claims |= {f"r{number}": True, f"n{number}": True}
    return (
        seen.is_whole(number)
        and is_consistent
        and all(is_done == (name in seen.completions) for name, is_done in claims.items())
    )


def kind_of(number: int) -> str:
    return ("atomic", "external", "batched")[number % 3]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_signal_near_a_commit_leaves_no_false_report(project: Project) -> None:
    project.routines(ROUTINES)
    # An exception amid the making of a connection leaves it to the garbage collector.
    project.environment["PYTHONWARNINGS"] = "ignore::ResourceWarning"
    numbers = [f"{number}" for number in (SEED, UNDISTURBED, DISTURBED)]
    script = "from tests.shop.late import main; main()"
    process = project.start(sys.executable, "-c", script, *numbers)
    assert process.finish(timeout=5 * PATIENCE) == 0, process.output
    reports = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    assert len(reports) == UNDISTURBED + DISTURBED
    seen = Seen(project)
    false = [report for report in reports if not is_true(report, seen)]
    assert not false, f"{len(false)} false reports, of seed {SEED}: {false[0]}"
    words = {word for report in reports for _, word in report["said"]}
    assert words == {"OK", "FAILED", "INTERRUPTED"}
    again = project.once("run")
    assert again.finish() == 0, again.output
    seen = Seen(project)
    assert len(seen.completions) == 2 * len(reports)
    assert all(seen.is_whole(n) for n in range(len(reports)) if kind_of(n) != "external")
