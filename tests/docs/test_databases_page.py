"""What docs/reference/databases.md says of a set-up is tested, by the test that it names."""

import re
import subprocess
import sys

from tests.processes.test_setups import CONNECTIONS
from tests.project import ROOT

PAGE = (ROOT / "docs" / "reference" / "databases.md").read_text()
ROWS = [
    line.strip("|").split("|")
    for line in PAGE.splitlines()
    if line.startswith("|") and not re.match(r"\|(-|.*\| test \|$)", line)
]


def named(text: str) -> list[str]:
    return re.findall(r"`(tests/[^`]+)`", text)


def test_each_row_is_supported_or_refused_by_a_check_and_names_a_test() -> None:
    assert len(ROWS) > 25
    checks = (ROOT / "once" / "checks.py").read_text()
    for _setup, verdict, _remarks, tests in ROWS:
        refusal = re.fullmatch(r" refused: `(once\.E\d+)` ", verdict)
        assert verdict == " supported " or (refusal and f'"{refusal[1]}"' in checks), verdict
        assert named(tests), tests


def test_the_tests_that_the_page_names_exist() -> None:
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *sorted({*named(PAGE)})],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert collected.returncode == 0, collected.stdout + collected.stderr


def test_each_set_up_that_is_tested_has_a_row() -> None:
    names = {re.search(r"test_setup\[(.*)\]", test) for test in named(PAGE)}
    assert {found[1] for found in names if found} >= {*CONNECTIONS}
