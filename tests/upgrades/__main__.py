"""Run it: ``python -m tests.upgrades --all --seed 7``."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import django

from tests.upgrades.databases import KINDS
from tests.upgrades.history import History, share

_HELP = """\
Upgrade a project of twelve releases with data, from each release to each later one, in one command
whose process is killed at a random step, and go back and forth past each gate. Compare what the
databases hold with what they hold after all releases in between. Ends with 1 where it differs."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.upgrades", description=_HELP)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from that on")
    parser.add_argument("--all", action="store_true", help="not a sixth of it")
    parser.add_argument("--database", choices=KINDS, nargs="*", default=[*KINDS])
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    print(f"seed {options.seed}, {' and '.join(options.database)}", flush=True)
    with ThreadPoolExecutor() as pool:
        figures = sum(pool.map(partial(_play, options), options.database), Counter())
    print(", ".join(f"{name} {count}" for name, count in sorted(figures.items())))
    return 1 if figures["differences"] else 0


def _play(options: argparse.Namespace, kind: str) -> Counter[str]:
    directory = Path(tempfile.mkdtemp(prefix="once-upgrades-"))
    history = History(kind, directory, f"once_upgrades_{os.getpid()}")
    figures: Counter[str] = Counter(differences=0)
    try:
        history.walk()
        for seed in range(options.seed, options.seed + options.seeds):
            chosen = slice(None) if options.all else share(kind, seed)
            for report in history.reports(seed, chosen):
                figures += Counter([kind, f"killed before {report.killed.split()[4]}"])
                if report.differences:
                    figures["differences"] += 1
                    print(f"Seed {seed}, {kind}, {report}", flush=True)
    finally:
        history.end()
        if not figures["differences"]:
            shutil.rmtree(directory)
    return figures


if __name__ == "__main__":
    sys.exit(main())
