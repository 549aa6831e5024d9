"""Run it: ``python -m tests.chaos --seconds 600 --seed 7 --database pgbouncer``."""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.chaos.monkey import Round
from tests.chaos.plan import DATABASES, new_plan
from tests.chaos.site import Site, new_site

_HELP = """\
Start many processes that run generated routines, do to them what happens in production (SIGKILL,
SIGSTOP, SIGTERM, ended sessions, crashed servers, deploys), and compare what is left with what was
promised. The seed determines the routines of each round and the sequence of what happens; the
timing of the machine it does not determine, so that a seed repeats what is tried, and not always
what is found. Ends with 1 where anything differs."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=_HELP)
    parser.add_argument("--seconds", type=float, default=60.0, help="begin no round after that")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--round", type=int, default=1, help="the number of the first round")
    parser.add_argument("--database", choices=DATABASES, default="postgresql")
    parser.add_argument("--processes", type=int, default=8, help="alive at once")
    parser.add_argument("--liveness", type=float, default=1.0, help="ONCE_LIVENESS_TIMEOUT")
    parser.add_argument("--events", type=int, default=24, help="in a round, at most")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.database}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="once-chaos-"))
    site = new_site(options.database, directory)
    figures: Counter[str] = Counter(rounds=0, violations=0)
    begun = time.monotonic()
    try:
        number = options.round
        while not figures["rounds"] or time.monotonic() - begun < options.seconds:
            figures += _play(site, options, number)
            figures["rounds"] += 1
            number += 1
    finally:
        site.close()
        if not figures["violations"]:
            shutil.rmtree(directory)
    print(", ".join(f"{name} {count}" for name, count in sorted(figures.items())))
    print(f"violations {figures['violations']}")
    return 1 if figures["violations"] else 0


def _play(site: Site, options: argparse.Namespace, number: int) -> Counter[str]:
    plan = new_plan(options.seed, number, options.database, options.liveness)
    plan = replace(plan, events=plan.events[: options.events])
    with site.project(f"round_{number}", options.liveness) as project:
        one = Round(plan=plan, site=site, project=project, size=options.processes)
        one.play()
    if one.violations:
        print(f"\nRound {number} of seed {options.seed} differs:")
        print("\n".join(f"* {violation}" for violation in one.violations))
        print("Routines:", *plan.routines, f"Contents: {plan.contents}", sep="\n  ")
        print("History:", *one.history, sep="\n  ")
        print("Bodies:", *one.facts.starts, sep="\n  ")
        print("Attempts:", *one.facts.attempts, sep="\n  ")
        print(f"What the processes printed: {project.directory}", flush=True)
    return one.figures + Counter(violations=len(one.violations))


if __name__ == "__main__":
    sys.exit(main())
