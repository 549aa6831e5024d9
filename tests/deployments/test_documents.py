"""What the documents say of the files is in the files."""

import re
import signal
from pathlib import Path

import pytest

from once.cli import exit_codes
from tests.project import ROOT

README = ROOT / "README.md"
HOW_TO = ROOT / "docs" / "how-to"
KUBERNETES = HOW_TO / "kubernetes.md"
MANIFESTS = (ROOT / "docker-compose.yml", *sorted((ROOT / "example").rglob("*.yaml")))
DOCUMENTS = (README, ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md")))


def lines(text: str) -> list[str]:
    return [line.partition("  # ")[0].strip() for line in text.splitlines()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_snippets_stand_in_the_files() -> None:
    pages = "".join(document.read_text() for document in DOCUMENTS)
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", pages, re.DOTALL)
    assert {file for file, _ in blocks} == {
        "docker-compose.yml",
        "example/kubernetes/job.yaml",
        "example/kubernetes/entrypoint.yaml",
    }
    assert len(blocks) == pages.count("```yaml\n")
    for file, text in blocks:
        assert set(lines(text)) <= set(lines((ROOT / file).read_text()))


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda path: path.name)
def test_files_have_no_secret(file: Path) -> None:
    text = file.read_text()
    assert "kind: Secret\n" not in text
    settings = re.findall(r"^ *\w*(?:SECRET|PASSWORD|KEY)\w*: *(.*)$", text, re.MULTILINE)
    passwords = re.findall(r"://\w+:([^@\s]+)@", text)
    assert {*settings, *passwords} <= {"${POSTGRES_PASSWORD:?}", "${SECRET_KEY:?}", "PASSWORD"}


def test_procfile_stands_on_its_page() -> None:
    assert (ROOT / "example" / "Procfile").read_text() in (HOW_TO / "heroku.md").read_text()


def test_exit_codes_are_those_of_the_command() -> None:
    rows = re.findall(r"^\| (\d[\d, ]*) \|", KUBERNETES.read_text(), re.MULTILINE)
    codes = {int(code) for row in rows for code in row.split(", ")}
    names = ("FAILED", "USAGE", "NOT_DONE", "TIMED_OUT", "HELD")
    assert codes == {0, 137, 128 + signal.SIGTERM, *(getattr(exit_codes, name) for name in names)}
