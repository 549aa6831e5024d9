"""The page of failures names tests that there are."""

import ast
import re

import pytest

from tests.project import ROOT

PAGE = (ROOT / "docs" / "explanation" / "failures.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE)


def test_rows_are_counted_and_none_is_without_a_test() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) == 38


@pytest.mark.parametrize(("number", "tests"), ROWS)
def test_tests_of_a_row_exist(number: str, tests: str) -> None:
    links = re.findall(r"\[`(\w+)`\]\((?:\.\./){2}(tests/[\w/]+\.py)\)", tests)
    assert links
    for name, path in links:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
