"""Check the claim protocol, as modelled in claim.pml, with the model checker Spin."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("claim.pml")
THREE = ("PROCESSES=3", "CRASHES=1", "BREAKS=1")


@pytest.fixture(autouse=True)
def _tools() -> None:
    if missing := [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]:
        message = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def verify(where: Path, macros: tuple[str, ...], *, liveness: bool = False) -> str:
    """Return the report of a search of the whole state space, or up to the first error."""

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=where, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shutil.copy(MODEL, where)
    run("spin", "-a", *(f"-D{macro}" for macro in macros), MODEL.name)
    run("gcc", "-O2", *([] if liveness else ["-DSAFETY", "-DNOCLAIM"]), "-o", "pan", "pan.c")
    report = run("./pan", *(["-a", "-f"] if liveness else []), "-m1000000")
    assert "max search depth too small" not in report, report
    assert "out of memory" not in report, report
    assert re.search(r"errors: \d", report), report
    return report


@pytest.mark.parametrize("macros", [(), THREE, ("NO_PING",), ("NUMBER_NOT_UNDER_GUARD",)])
def test_safe(tmp_path: Path, macros: tuple[str, ...]) -> None:
    """Correct, with three processes, and with either of two safeguards taken away."""
    assert "errors: 0" in verify(tmp_path, macros)


def test_every_statement_is_reached(tmp_path: Path) -> None:
    """The model checks what it says: only the end of the server's endless loop is unreached."""
    report = verify(tmp_path, ())
    assert re.search(r"unreached in proctype process\n\s+\(0 of \d+ states\)", report), report
    assert re.search(r'unreached in init\n.*"-end-"\n\s+\(1 of \d+ states\)', report), report


@pytest.mark.parametrize("macros", [(), THREE])
def test_live(tmp_path: Path, macros: tuple[str, ...]) -> None:
    assert "errors: 0" in verify(tmp_path, macros, liveness=True)


@pytest.mark.parametrize(
    "macros",
    [
        ("NUMBER_NOT_UNDER_GUARD", "NO_PING"),
        ("PREDECESSORS_FIRST", "NO_PING"),
        ("READ_BEFORE_FENCE",),
        ("NO_FENCE",),
    ],
    ids="+".join,
)
def test_broken_variant_commits_twice(tmp_path: Path, macros: tuple[str, ...]) -> None:
    assert "assertion violated (effects<=1)" in verify(tmp_path, macros)


def test_guard_of_the_dead_never_freed_blocks_everyone(tmp_path: Path) -> None:
    """Polling does not hide a standstill from the liveness check."""
    assert "acceptance cycle" in verify(tmp_path, ("NO_EVICTION",), liveness=True)
