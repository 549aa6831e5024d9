"""``python -m tests.mutation once/guards.py ...``: which changes of a module no test notices."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import celery  # noqa: F401  # as all below that tests import: once here, instead of in each mutant
import coverage
import django.test  # noqa: F401
import psycopg
import pytest

from tests.mutation.mutants import Mutant, mutants
from tests.project import ROOT, with_database
from tests.servers import database_url

_MAP = ROOT / "build" / "mutation-map.json"
_LEVELS = ["tests/unit", "tests/database"]
#: Seconds after which a test hangs, and so many times what it took before.
_HANGS, _TIMES = 20.0, 5.0


class _Chosen:
    """A plugin: runs the tests that were chosen, the quickest first, and ends what hangs."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.hangs = Path("hangs").open("w")  # noqa: SIM115  # until the process ends

    def pytest_collection(self) -> None:
        faulthandler.dump_traceback_later(6 * _HANGS, exit=True, file=self.hangs)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.seconds:
            chosen = [item for item in items if item.nodeid in self.seconds]
            items[:] = sorted(chosen, key=lambda item: self.seconds[item.nodeid])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        limit = _HANGS + _TIMES * self.seconds.get(item.nodeid, _HANGS)
        faulthandler.dump_traceback_later(limit, exit=True, file=self.hangs)


class _Measured:
    """A plugin: which test covers which lines, and how long it takes."""

    def __init__(self) -> None:
        self.coverage = coverage.Coverage(data_file=None, include=[str(ROOT / "once" / "*")])
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.add(report.nodeid)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("files", nargs="+", help="such as once/guards.py")
    parser.add_argument("--sample", type=int, help="so many mutants of each file, at random")
    parser.add_argument("--seed", type=int, default=1, help="of that")
    parser.add_argument("--seconds", type=float, default=30.0, help="of tests for each mutant")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at the same time")
    parser.add_argument("--tests", nargs="+", help="all of these, whatever lines they cover")
    parser.add_argument("--again", type=Path, help="only what survived according to this file")
    parser.add_argument("--out", type=Path, help="where to write each answer, a JSON object a line")
    asked = parser.parse_args()
    covered = {} if asked.tests else _map()
    again = [json.loads(line) for line in asked.again.open()] if asked.again else []
    survived = {one["mutant"] for one in again if one["answer"] != "killed"}
    chosen: list[Mutant] = []
    for file in asked.files:
        source = (ROOT / file).read_bytes()
        found = list(mutants(file, source))
        if asked.sample and asked.sample < len(found):
            sampled = random.Random(asked.seed).sample(range(len(found)), asked.sample)
            found = [found[at] for at in sorted(sampled)]
        lines = source.count(b"\n")
        chosen.append(Mutant(file, 1, 0, lines, "unchanged", "", "", source))
        chosen += [one for one in found if not asked.again or str(one) in survived]
    answers: dict[str, Counter[str]] = defaultdict(Counter)

    def answer(mutant: Mutant, what: str, tests: int, seconds: float) -> None:
        if mutant.operator == "unchanged":
            if what in ("killed", "hangs"):
                sys.exit(f"The tests of {mutant.file} fail without any change.")
            return
        answers[mutant.file][what] += 1
        print(f"{what:9} {tests:4} tests {seconds:5.1f} s  {mutant}", flush=True)
        if asked.out:
            with asked.out.open("a") as out:
                out.write(
                    json.dumps({"mutant": str(mutant), "answer": what, "tests": tests}) + "\n"
                )

    _run(chosen, lambda mutant: _tests(mutant, covered, asked), asked, answer)
    for file, counted in answers.items():
        print(f"{file}: {counted.total()} mutants, {dict(counted)}")
    return 0


def _run(
    waiting: list[Mutant],
    tests_of: Callable[[Mutant], tuple[list[str], dict[str, float]]],
    asked: argparse.Namespace,
    answer: Callable[[Mutant, str, int, float], None],
) -> None:
    """Each mutant in a process of its own, in a copy of the checkout and on a database."""
    home = Path(tempfile.mkdtemp(prefix="mutation-"))
    url = database_url()
    free = []
    for job in range(asked.jobs):
        slot = home / f"mutation_{os.getpid()}_{job}"
        shutil.copytree(ROOT, slot, ignore=shutil.ignore_patterns(".git", "build", "*.egg-info"))
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(f"CREATE DATABASE {slot.name}")
        free.append(slot)
    busy: dict[int, tuple[Path, Mutant, int, float]] = {}
    left = iter(waiting)
    while True:
        while free and (mutant := next(left, None)) is not None:
            paths, seconds = tests_of(mutant)
            if not paths:
                answer(mutant, "untested", 0, 0.0)
                continue
            slot = free.pop()
            pid = os.fork()
            if not pid:
                os._exit(_child(slot, mutant, paths, seconds, with_database(url, slot.name)))
            busy[pid] = slot, mutant, len(seconds), time.monotonic()
        if not busy:
            break
        pid, status = os.wait()
        slot, mutant, tests, began = busy.pop(pid)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it left behind
        shutil.copy2(ROOT / mutant.file, slot / mutant.file)
        code = os.waitstatus_to_exitcode(status)
        hangs = (slot / "hangs").stat().st_size > 0
        what = "survived" if code == 0 else "hangs" if hangs else "killed"
        answer(mutant, what, tests, time.monotonic() - began)
        free.append(slot)
    for slot in free:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(f"DROP DATABASE {slot.name} WITH (FORCE)")
            session.execute(f"DROP DATABASE IF EXISTS test_{slot.name} WITH (FORCE)")
    shutil.rmtree(home)


def _child(
    slot: Path, mutant: Mutant, paths: list[str], seconds: dict[str, float], url: str
) -> int:
    os.setsid()
    log = os.open(slot / "log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    (slot / mutant.file).write_bytes(mutant.source)
    sys.dont_write_bytecode = True  # a cache is told from others by the second and the size
    os.environ |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "DATABASE_URL": url,
        "TEST_SQLITE": f"sqlite:///{slot}/db.sqlite3",
        "PYTEST_XDIST_WORKER": slot.name,  # makes names of databases its own
    }
    os.chdir(slot)
    sys.path.insert(0, str(slot))
    _forget_modules()
    options = ["-x", "-q", "--create-db", f"--basetemp={slot}/tmp"]
    return int(pytest.main([*options, *paths], plugins=[_Chosen(seconds)]))


def _tests(
    mutant: Mutant, covered: dict[str, Any], asked: argparse.Namespace
) -> tuple[list[str], dict[str, float]]:
    """Paths, and of each test in them that is to run the seconds it took."""
    if asked.tests:
        return asked.tests, {}
    lines: dict[str, list[str]] = covered["lines"][mutant.file]
    names = {
        name
        for line in range(mutant.line, mutant.last_line + 1)
        for name in lines.get(f"{line}", [])
    }
    if not names or "" in names:  # done at import: whatever tests the module
        names = {name for tests in lines.values() for name in tests}
    room = asked.seconds
    chosen = {}
    for name in sorted(names - {""}, key=lambda name: covered["seconds"].get(name, 0.0)):
        chosen[name] = covered["seconds"].get(name, 0.0)
        room -= chosen[name]
        if room < 0:
            break
    return sorted({name.partition("::")[0] for name in chosen}), chosen


def _map() -> dict[str, Any]:
    """What the tests cover, measured anew where module or test has changed."""
    parts = [ROOT / "once", *(ROOT / level for level in _LEVELS)]
    files = [file for part in parts for file in sorted(part.rglob("*.py"))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if not _MAP.exists() or json.loads(_MAP.read_text())["digest"] != digest:
        _MAP.parent.mkdir(exist_ok=True)
        database_url()
        pid = os.fork()  # where nothing of the product is loaded yet
        if not pid:
            _MAP.write_text(json.dumps({"digest": digest, **_measure(_LEVELS)}))
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            sys.exit("What the tests cover could not be measured.")
    found: dict[str, Any] = json.loads(_MAP.read_text())
    return found


def _measure(paths: list[str]) -> dict[str, Any]:
    """By file and line the tests that cover it, and by test its seconds. What fails is left out."""
    measured = _Measured()
    _forget_modules()
    measured.coverage.start()
    pytest.main(["-q", *paths], plugins=[measured])
    measured.coverage.stop()
    data = measured.coverage.get_data()
    lines = {
        str(Path(file).relative_to(ROOT)): {
            line: sorted(set(names) - measured.failed)
            for line, names in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    return {"lines": lines, "seconds": measured.seconds, "failed": sorted(measured.failed)}


def _forget_modules() -> None:
    """Have the product and its tests loaded anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("once", "tests")]:
        del sys.modules[name]


if __name__ == "__main__":
    sys.exit(main())
