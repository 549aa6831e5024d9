"""Docstrings, comments and messages of the package name their actor by a noun."""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import once

FIRST_WORDS = re.compile(r"^(What|Whether|How|Those|That|Which|Where|Why|All that)\b")
PERSONS = re.compile(r"\b(who|whom|whoever|(no|some|any|every)body|others)\b", re.I)


def prose(source: str) -> Iterator[str]:
    """Every docstring, and every comment that has a line of its own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            yield token.string.lstrip("#: ")


def strings(source: str) -> Iterator[str]:
    """Every string, messages among them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def found(pattern: re.Pattern[str], texts: Callable[[str], Iterator[str]]) -> list[str]:
    """The texts of the package in which a pattern is found."""
    paths = sorted(Path(once.__file__).parent.rglob("*.py"))
    assert len(paths) > 50
    return [
        f"{path}: {text}"
        for path in paths
        for text in texts(path.read_text())
        if pattern.search(text)
    ]


def test_docstrings_and_comments_begin_with_a_verb_or_a_noun() -> None:
    assert found(FIRST_WORDS, prose) == []


@pytest.mark.parametrize("texts", [prose, strings])
def test_actors_have_a_noun(texts: Callable[[str], Iterator[str]]) -> None:
    assert found(PERSONS, texts) == []
