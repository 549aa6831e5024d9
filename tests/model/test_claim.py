"""Check the claim protocol, as modelled in *.pml, with the model checker Spin."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests.model.spin import QUESTIONS, Question, ask

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "model.md"


@pytest.fixture
def _tools() -> None:
    if missing := [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]:
        message = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.mark.usefixtures("_tools")
@pytest.mark.parametrize("question", [one for one in QUESTIONS if one.quick], ids=str)
def test_model_answers(tmp_path: Path, question: Question) -> None:
    """What holds does, and who leaves a rule out is shown where that leads."""
    answer = ask(question, tmp_path)
    assert question.finds in answer.error if question.finds else not answer.error, answer.report


def test_page_names_code_that_exists() -> None:
    names = re.findall(r"`(once\.[\w.]+)`", PAGE.read_text())
    assert len(set(names)) > 15
    for name in names:
        resolve_name(name)


def test_page_names_every_rule_that_can_be_left_out() -> None:
    page = PAGE.read_text()
    macros = {macro for one in QUESTIONS for macro in one.macros.split() if "=" not in macro}
    assert macros
    assert [macro for macro in sorted(macros) if f"`{macro}`" not in page] == []
