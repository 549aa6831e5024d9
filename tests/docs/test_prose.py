"""The pages are in plain English: short sentences, and an actor that has a name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import ROOT

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: The most words of a sentence.
LONGEST = 25
#: Instead of these stands a noun of the glossary in CONTRIBUTING.md: process, holder, waiter ...
PRONOUNS = re.compile(
    r"\b(who|whom|who(so)?ever|(no|some|any|every)body|others|(an)?other one|th(is|at|e) one)\b",
    re.I,
)
_LEFT_OUT = re.compile(
    r"^ *```.*?^ *```$|<!--.*?-->|^\|[-| :]+\|$|!\[[^\]]*\]\([^)]*\)", re.DOTALL | re.M
)
#: A paragraph, an item of a list, a cell of a table and a heading end a sentence.
_ENDS = re.compile(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) |\||\n#+ ")
_BETWEEN = re.compile(r"(?<=[.!?])[\"*)]*\s+(?=[\[\"*(A-Z0-9])")


def sentences(text: str) -> Iterator[str]:
    """Every sentence of a page, code and targets of links left out."""
    text = _LEFT_OUT.sub("\n\n", text)
    text = re.sub(r"`[^`]*`", "Code", text)
    text = re.sub(r"\[([^\]]*)\]\([^)\s]*\)", r"\1", text)
    for part in _ENDS.split(text):
        for sentence in _BETWEEN.split(part):
            yield " ".join(sentence.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sentences_are_short_and_name_their_actor(page: Path) -> None:
    assert [
        sentence
        for sentence in sentences(page.read_text())
        if len(re.findall(r"\S*\w\S*", sentence)) > LONGEST or PRONOUNS.search(sentence)
    ] == []


def test_a_long_sentence_and_a_pronoun_are_found() -> None:
    page = f"# Title\n\nA short sentence.\n- {'word ' * 26}\n\n| a | whoever |\n"
    found = [sentence for sentence in sentences(page) if sentence]
    assert found == ["# Title", "A short sentence.", ("word " * 26).strip(), "a", "whoever"]
    assert [bool(PRONOUNS.search(sentence)) for sentence in found] == [False] * 4 + [True]
