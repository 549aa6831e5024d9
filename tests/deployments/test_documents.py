"""What the documents say of the files is in the files."""

import re
from pathlib import Path

import pytest

from once.management import exits
from tests.project import ROOT

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "deployments.md")


def lines(text: str) -> list[str]:
    return [line.partition("  # ")[0].strip() for line in text.splitlines()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert links
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_snippets_stand_in_the_files() -> None:
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", DOCUMENTS[0].read_text(), re.DOTALL)
    assert [file for file, _ in blocks] == [
        "example/kubernetes/job.yaml",
        "example/kubernetes/entrypoint.yaml",
    ]
    for file, text in blocks:
        assert set(lines(text)) <= set(lines((ROOT / file).read_text()))


def test_exit_codes_are_those_of_the_command() -> None:
    rows = re.findall(r"^\| (\d[\d, ]*) \|", DOCUMENTS[1].read_text(), re.MULTILINE)
    codes = {int(code) for row in rows for code in row.split(", ")}
    names = ("FAILED", "USAGE", "NOT_DONE", "TIMED_OUT", "HELD", "TERMINATED")
    assert codes == {0, 137, *(getattr(exits, name) for name in names)}
