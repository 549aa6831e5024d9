"""How docstrings and comments of the package begin: with a verb or a noun, not with a pronoun."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import once

PRONOUNS = re.compile(r"(Who|What|Whether|How|Those|That|Which|Where|Why|Others|All that)\b")


def prose(source: str) -> Iterator[str]:
    """Every docstring, and every comment that has a line of its own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            yield token.string.lstrip("#: ")


def test_docstrings_and_comments_name_their_actor() -> None:
    paths = sorted(Path(once.__file__).parent.rglob("*.py"))
    assert len(paths) > 50
    assert [
        f"{path}: {text.splitlines()[0]}"
        for path in paths
        for text in prose(path.read_text())
        if PRONOUNS.match(text)
    ] == []
