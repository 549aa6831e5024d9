"""What the models are asked, each with the answer that it must have, and how Spin is asked."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HERE", "QUESTIONS", "Answer", "Question", "ask"]

HERE = Path(__file__).parent

#: What Spin reports of a state without a successor in which somebody still waits, of an endless
#: way on which nobody ends, and of the model's own assertions.
STUCK = "invalid end state"
ENDLESS = "acceptance cycle"
TWICE = "effects[at]<=1"
TWICE_THERE = "effects[(seen-1)]<=1"
NEVER = "effects[(2-1)]==1"
FORGOTTEN = "failed[(2-1)])==1"
TOUCHED = "touched"
TOO_LATE = "since<=1"
ZOMBIE_RECORDS = "row[1]==4"
ZOMBIE_STARTS = "row[number[me]]==4"
STARTED_TWICE = "started[0]<=1"
HOLDER_FENCED = "holder==me"
NOT_FINAL = "row[number[me]]!=4"


@dataclass(frozen=True, slots=True)
class Question:
    """One model with its macros, and what a search of all its states must find."""

    model: str
    macros: str
    #: Part of the counterexample's report; empty where there must be none.
    finds: str = ""
    #: Whether it is asked if everybody ends, by the ltl formula and under weak fairness.
    liveness: bool = False
    #: Whether it is asked in CI.
    quick: bool = False

    def __str__(self) -> str:
        return " ".join([self.model, "live" * self.liveness, self.macros]).replace("  ", " ")


@dataclass(frozen=True, slots=True)
class Answer:
    """What Spin said."""

    report: str
    states: int
    seconds: float

    @property
    def error(self) -> str:
        """The first line about what went wrong, or nothing."""
        found = re.search(r"^pan:\d+: (.*?)( \(at depth \d+\))?$", self.report, re.MULTILINE)
        return found[1] if found else ""


_KINDS = ("ATOMIC", "BATCHED", "EXTERNAL")
#: Of the claim: kind and retry, what is left out, and what is found then.
_BROKEN = [
    ("ATOMIC", "NUMBER_NOT_UNDER_LOCK", TWICE),
    ("ATOMIC", "READ_OUTSIDE_LOCK ATTEMPTS=5", HOLDER_FENCED),
    ("ATOMIC", "PREDECESSORS_FIRST", TOUCHED),
    ("ATOMIC", "COMPLETION_FIRST", TWICE),
    ("ATOMIC", "NO_FENCE", TOUCHED),
    ("ATOMIC", "READ_BEFORE_FENCE", TWICE),
    ("ATOMIC", "NO_SECOND_READ", TWICE),
    ("ATOMIC", "NO_ROW_LOCK", TOUCHED),
    ("ATOMIC", "NO_WORK_LOCK", STUCK),
    ("ATOMIC", "UNFENCED_OUTCOME", NOT_FINAL),
    ("BATCHED", "CURSOR_BEFORE_FENCE", TWICE),
    ("EXTERNAL", "NO_PING", ZOMBIE_STARTS),
    ("EXTERNAL", "NO_STATE_CHECK", ZOMBIE_RECORDS),
    ("EXTERNAL RETRY=0", "NO_SECOND_READ", STARTED_TWICE),
    ("EXTERNAL RETRY=0", "HELD_NOT_READ_AGAIN", STARTED_TWICE),
    ("EXTERNAL RETRY=0", "REPEAT_BODY", STARTED_TWICE),
]
#: What does no harm where it alone is left out: docs/explanation/model.md says why it is there.
_SPARE = [
    ("ATOMIC", "NO_CONFIRM"),
    ("ATOMIC", "NO_SETTLE"),
    ("ATOMIC", "FENCE_BEFORE_INSERT"),
    ("EXTERNAL", "NO_END_OWN"),
    ("EXTERNAL", "NO_ROW_LOCK"),
]
#: Of batches that a database loses: what fails and what is left out, and what is found then.
_LOSSY = [
    ("CURSOR_IN_MEMORY", NEVER),
    ("COMPLETION_APART", NEVER),
    ("KIND=ATOMIC TORN_CLAIMS NO_CONSTRAINT", TWICE_THERE),
    ("IDS_REPEAT RESUME_BLINDLY", TWICE_THERE),
    ("IDS_REPEAT RESUMED_APART", NEVER),
    ("ITEMS RECORDED_APART", FORGOTTEN),
    ("ITEMS REMOVED_APART ATTEMPTS=3", TWICE_THERE),
    # What the rules that are there do not exclude: docs/explanation/model.md says what would.
    ("TORN_CLAIMS", TWICE_THERE),
]

QUESTIONS = [
    *(
        Question(
            "claim",
            f"KIND={kind} RETRY={retry}",
            liveness=live,
            quick=not live or (retry == 1 and kind != "BATCHED"),
        )
        for kind in _KINDS
        for retry in (1, 0)
        for live in (False, True)
    ),
    *(
        Question("claim", f"KIND={kind} RETRY={retry} PROCESSES=3")
        for kind in _KINDS
        for retry in (1, 0)
    ),
    *(
        Question("claim", f"KIND={kind} RETRY={retry} CRASHES=2 BREAKS=2")
        for kind in _KINDS
        for retry in (1, 0)
    ),
    *(
        Question("claim", f"KIND={kind} {left_out}", finds, quick=True)
        for kind, left_out, finds in _BROKEN
    ),
    Question("claim", "KIND=BATCHED PAUSES=1", quick=True),
    Question("claim", "KIND=BATCHED PAUSES=2 CRASHES=0 BREAKS=0", quick=True),
    Question("claim", "KIND=BATCHED PAUSES=1", liveness=True),
    Question("claim", "KIND=BATCHED PAUSES=1 LOOK_ONCE", TOO_LATE, quick=True),
    Question("claim", "KIND=ATOMIC NO_EVICTION", ENDLESS, liveness=True, quick=True),
    Question("claim", "KIND=EXTERNAL REPEATS=255", "", liveness=True),
    *(Question("claim", f"KIND={kind} {left_out}") for kind, left_out in _SPARE),
    Question("batches", "KIND=BATCHED", quick=True),
    Question("batches", "KIND=ATOMIC TORN_CLAIMS IDS_REPEAT", quick=True),
    Question("batches", "KIND=BATCHED ATTEMPTS=3"),
    Question("batches", "IDS_REPEAT", quick=True),
    Question("batches", "ITEMS", quick=True),
    Question("batches", "ITEMS ATTEMPTS=3"),
    Question("batches", "TORN_CLAIMS IDS_REPEAT ONE_CURSOR"),
    *(Question("batches", left_out, finds, quick=True) for left_out, finds in _LOSSY),
    *(Question("tables", f"KIND={kind}", liveness=True, quick=True) for kind in _KINDS),
    Question("tables", "PROCESSES=3", liveness=True),
    *(Question("tables", f"KIND={kind} LOCK_KEEPS_TABLES", STUCK, quick=True) for kind in _KINDS),
    Question("tables", "LOCK_KEEPS_TABLES WORK_GIVES_UP", ENDLESS, liveness=True, quick=True),
    Question("standby", "PROCESSES=2", liveness=True, quick=True),
    Question("standby", "PROCESSES=3", liveness=True),
    Question("standby", "TURN_THROWN_AWAY", ENDLESS, liveness=True, quick=True),
    Question("standby", "STANDBY_NOT_TOLD", ENDLESS, liveness=True, quick=True),
    Question("standby", "BREAK_NOT_TOLD", ENDLESS, liveness=True, quick=True),
    Question("pool", "", quick=True),
    Question("pool", "PROCESSES=4 POOL=2"),
    Question("pool", "PROCESSES=4 POOL=3"),
    Question("pool", "NO_GIVING_UP_AT_BEGIN", STUCK, quick=True),
    Question("pool", "NO_GIVING_UP_LATER"),
]


def ask(question: Question, where: Path) -> Answer:
    """Search the whole state space, or up to the first error.

    Raises:
        subprocess.CalledProcessError: Spin or the compiler failed.
        AssertionError: the search was not exhaustive.

    """

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=where, capture_output=True, text=True, timeout=900, check=True
        )
        return done.stdout

    file = shutil.copy(HERE / f"{question.model}.pml", where)
    run("spin", "-a", *(f"-D{macro}" for macro in question.macros.split()), Path(file).name)
    # Where there are few states, or an error is found soon, it is compiling that takes time.
    how = "-O0" if question.quick or question.finds else "-O2"
    what = ["-DNFAIR=3"] if question.liveness else ["-DSAFETY", "-DNOCLAIM"]
    run("gcc", "-w", how, "-DCOLLAPSE", *what, "-o", "pan", "pan.c")
    report = run("./pan", *(["-a", "-f"] if question.liveness else []), "-m3000000")
    for cut in ("max search depth too small", "out of memory", "search not completed"):
        if cut != "search not completed" or "errors: 0" in report:
            assert cut not in report.lower(), report
    states = re.search(r"([\d.e+]+) states, stored", report)
    seconds = re.search(r"elapsed time ([\d.]+)", report)
    assert states is not None, report
    return Answer(report, int(float(states[1])), float(seconds[1]) if seconds else 0.0)
