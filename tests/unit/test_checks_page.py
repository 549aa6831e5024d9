"""Each system check has its place in the code, on its page and in a test."""

import ast
import inspect
import re

from once import checks
from tests.project import ROOT

PAGE = (ROOT / "docs" / "reference" / "checks.md").read_text()
IDS = set(re.findall(r'"(once\.[EW]\d+)"', inspect.getsource(checks)))


def test_page_has_a_heading_for_each_with_a_remedy() -> None:
    sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    names = [section.partition("\n")[0] for section in sections]
    assert names == sorted(IDS)
    for section in sections:
        assert "**Remedy.**" in section


def test_each_has_a_test_of_its_name() -> None:
    tests = {
        node.name
        for path in (ROOT / "tests").glob("*/test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    for identifier in IDS:
        number = identifier.removeprefix("once.").lower()
        assert [name for name in tests if name.startswith(f"test_{number}_")], identifier
