"""``python -m tests.mutation once/views.py ...``: changes of a module that no test notices."""

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
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

# What tests import from elsewhere: here once, instead of for each mutant.
import celery  # noqa: F401
import coverage
import django.core.management
import django.db.backends.postgresql.base
import django.db.backends.sqlite3.base
import django.db.migrations.executor
import django.test  # noqa: F401
import psycopg
import pytest

from tests.mutation.mutants import Mutant, mutants
from tests.project import ROOT, with_database
from tests.servers import database_url

LEVELS = ["tests/unit", "tests/contract", "tests/behaviour"]
_MAP = ROOT / "build" / "mutation-map.json"
#: Seconds after which a test hangs, more for one that took long before.
_HANGS = 20.0


class Chosen:
    """A plugin: runs the chosen tests in their order, all where none is, and ends what hangs."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.hangs = Path("hangs").open("w")  # noqa: SIM115  # until the process ends

    def pytest_collection(self) -> None:
        faulthandler.dump_traceback_later(6 * _HANGS, exit=True, file=self.hangs)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.seconds:
            order = {name: place for place, name in enumerate(self.seconds)}
            chosen = [item for item in items if item.nodeid in order]
            items[:] = sorted(chosen, key=lambda item: order[item.nodeid])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        limit = _HANGS + 5 * self.seconds.get(item.nodeid, _HANGS)
        faulthandler.dump_traceback_later(limit, exit=True, file=self.hangs)


class Measured:
    """A plugin: which tests cover which lines, and how long each takes."""

    def __init__(self) -> None:
        self.coverage = coverage.Coverage(data_file=None, include=[str(ROOT / "once" / "*")])
        self.seconds: Counter[str] = Counter()
        self.failed: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration  # type: ignore[assignment]
        if report.failed:
            self.failed.add(report.nodeid)


class Slot:
    """A copy of the checkout and a database, for one mutant after the other."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self._server = url
        self.url = with_database(url, directory.name)
        ignored = shutil.ignore_patterns(".git", "build", "*.egg-info")
        shutil.copytree(ROOT, directory, ignore=ignored)
        self._execute(f"CREATE DATABASE {directory.name}")

    def start(self, mutant: Mutant, paths: list[str], seconds: dict[str, float]) -> int:
        """Run tests against a mutant in a process of its own: its number."""
        pid = os.fork()
        if pid:
            return pid
        os.setsid()
        os.chdir(self.directory)
        log = os.open("log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        Path(mutant.file).write_bytes(mutant.source)
        sys.dont_write_bytecode = True  # caches are told apart by the second and the size
        os.environ |= {
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATABASE_URL": self.url,
            "TEST_SQLITE": f"sqlite:///{self.directory}/db.sqlite3",
            "PYTEST_XDIST_WORKER": self.directory.name,  # part of the names of databases
        }
        sys.path.insert(0, str(self.directory))
        _forget_modules()
        options = ["-x", "-q", "--reuse-db", f"--basetemp={self.directory}/tmp"]
        os._exit(pytest.main([*options, *paths], plugins=[Chosen(seconds)]))

    def answer(self, pid: int, status: int, mutant: Mutant) -> str:
        """What became of it; then all is as it was before."""
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it left behind
        shutil.copy2(ROOT / mutant.file, self.directory / mutant.file)
        code = os.waitstatus_to_exitcode(status)
        hangs = (self.directory / "hangs").stat().st_size > 0
        if hangs or code not in (0, 1):
            self.drop(f"test_{self.directory.name}")  # rows may be left in it
        return "survived" if code == 0 else "hangs" if hangs else "killed"

    def drop(self, database: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def _execute(self, sql: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as session:
            session.execute(sql)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("files", nargs="+", help="such as once/databases/lock.py")
    parser.add_argument("--sample", type=int, help="so many mutants of each file, at random")
    parser.add_argument("--seed", type=int, default=1, help="of that")
    parser.add_argument("--seconds", type=float, default=30.0, help="of tests for each mutant")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at the same time")
    parser.add_argument("--tests", nargs="+", help="all of these, whatever lines they cover")
    parser.add_argument("--again", type=Path, help="only what was not killed according to that")
    parser.add_argument("--out", type=Path, help="where each answer goes, a JSON object a line")
    asked = parser.parse_args()
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, answer in _answers(_chosen(asked), asked):
        if mutant.operator == "unchanged":
            if answer in ("killed", "hangs"):
                sys.exit(f"The tests of {mutant.file} fail without any change.")
            continue
        answers[mutant.file][answer] += 1
        print(f"{answer:9} {mutant}", flush=True)
        if asked.out:
            with asked.out.open("a") as out:
                out.write(json.dumps({"mutant": str(mutant), "answer": answer}) + "\n")
    for file, counted in answers.items():
        print(f"{file}: {counted.total()} mutants, {dict(counted)}")
    return 0


def _chosen(asked: argparse.Namespace) -> list[Mutant]:
    """Of each file what is asked for, after what is no mutant and must pass."""
    chosen = []
    again = [json.loads(line) for line in asked.again.open()] if asked.again else []
    left = {one["mutant"] for one in again if one["answer"] in ("survived", "untested")}
    for file in asked.files:
        source = (ROOT / file).read_bytes()
        chosen.append(Mutant(file, 1, 0, source.count(b"\n"), "unchanged", "", "", source))
        found = list(mutants(file, source))
        if asked.sample and asked.sample < len(found):
            places = random.Random(asked.seed).sample(range(len(found)), asked.sample)
            found = [found[place] for place in sorted(places)]
        chosen += [mutant for mutant in found if not asked.again or str(mutant) in left]
    return chosen


def _answers(chosen: list[Mutant], asked: argparse.Namespace) -> Any:
    """Each mutant and what became of it, as it comes."""
    covered = {} if asked.tests else _map()
    home = Path(tempfile.mkdtemp(prefix="mutation-"))
    slots = [Slot(home / f"mutation_{os.getpid()}_{n}", database_url()) for n in range(asked.jobs)]
    free = list(slots)
    busy: dict[int, tuple[Slot, Mutant]] = {}
    try:
        for mutant in [*chosen, *[None] * len(slots)]:
            if not free or (mutant is None and busy):
                pid, status = os.wait()
                slot, tested = busy.pop(pid)
                yield tested, slot.answer(pid, status, tested)
                free.append(slot)
            if mutant is not None:
                seconds = {} if asked.tests else _tests(mutant, covered, asked.seconds)
                paths = asked.tests or sorted({name.partition("::")[0] for name in seconds})
                if not paths:
                    yield mutant, "untested"
                    continue
                slot = free.pop()
                busy[slot.start(mutant, paths, seconds)] = slot, mutant
    finally:
        for pid in busy:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for slot in slots:
            slot.drop(slot.directory.name)
            slot.drop(f"test_{slot.directory.name}")
        shutil.rmtree(home)


def _tests(mutant: Mutant, covered: dict[str, Any], room: float) -> dict[str, float]:
    """The tests of what was changed, those first that are about little besides: their seconds."""
    lines: dict[str, list[str]] = covered["lines"].get(mutant.file, {})
    changed = map(str, range(mutant.line, mutant.last_line + 1))
    names = {name for line in changed for name in lines.get(line, [])}
    if "" in names:  # done at import: whatever tests the module
        names = {name for tests in lines.values() for name in tests}
    chosen: dict[str, float] = {}
    for name in sorted(names - {""}, key=lambda name: (covered["sizes"][name], name)):
        if sum(chosen.values()) < room:
            chosen[name] = covered["seconds"][name]
    return chosen


def _map() -> dict[str, Any]:
    """What the tests cover, measured anew where the product or a test has changed."""
    parts = [ROOT / "once", *(ROOT / level for level in LEVELS)]
    files = [file for part in parts for file in sorted(part.rglob("*.py"))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if not _MAP.exists() or json.loads(_MAP.read_text())["digest"] != digest:
        _MAP.parent.mkdir(exist_ok=True)
        database_url()
        pid = os.fork()  # where nothing of the product is loaded yet
        if not pid:
            _MAP.write_text(json.dumps({"digest": digest, **_measure(LEVELS)}))
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            sys.exit("What the tests cover could not be measured.")
    found: dict[str, Any] = json.loads(_MAP.read_text())
    return found


def _measure(paths: list[str]) -> dict[str, Any]:
    """By file and line the tests that cover it, and by test its seconds and lines."""
    measured = Measured()
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
    sizes = Counter(name for found in lines.values() for names in found.values() for name in names)
    return {"lines": lines, "seconds": measured.seconds, "sizes": sizes}


def _forget_modules() -> None:
    """Have the product and its tests loaded anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("once", "tests")]:
        del sys.modules[name]


if __name__ == "__main__":
    sys.exit(main())
