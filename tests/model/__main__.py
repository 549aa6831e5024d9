"""``python -m tests.model [--all]``: ask Spin and print states, seconds and what was found."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.model.spin import QUESTIONS, ask


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also what takes longer")
    asks_all: bool = parser.parse_args().all
    wrong = 0
    for question in QUESTIONS:
        if not (asks_all or question.quick):
            continue
        with tempfile.TemporaryDirectory() as where:
            answer = ask(question, Path(where))
        is_right = question.finds in answer.error if question.finds else not answer.error
        wrong += not is_right
        verdict = answer.error or "holds"
        mark = "" if is_right else "  WRONG"
        print(
            f"{answer.states:>9} {answer.seconds:6.2f} s  {question}: {verdict}{mark}", flush=True
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
