"""Every snippet of the documentation runs, or names what there is."""

import ast
import json
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.core.management import CommandError, get_commands
from django.db import connections

from once import conf
from once.management.commands.once import Command
from tests.docs.shop import blocks, make, run
from tests.project import ROOT

DOCS = ROOT / "docs"
#: Those that are missing have a test of their own.
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md")))
    if page.stem not in ("test-your-project", "tutorial")
]
ROUTINES = ("shop/routines.py", "after: shop/routines.py")
#: Before the routines of each section: they are several projects in one.
BEGIN = """

@routine
def begin():
    Price.objects.all().delete()
    Currency.objects.all().delete()
    Country.objects.all().delete()
"""


def sections() -> list[tuple[str, str]]:
    """Each section of a page that declares routines: a label for it, and what it declares."""
    found = []
    for page in PAGES[1:]:
        for number, section in enumerate(re.split(r"^## ", page.read_text(), flags=re.MULTILINE)):
            declared = [text for place, text in blocks(section) if place in ROUTINES]
            if declared:
                label = f"{page.stem.replace('-', '_')}_{number}"
                found.append((label, BEGIN + "\n".join(declared)))
    return found


def commands(text: str) -> list[str]:
    """The lines for a shell, and what is named in the text as a command of ``once``."""
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    named = re.findall(r"`((?:python )?manage\.py once \w[^`]*)`", text)
    split = [re.split(r" (?:&&|&) ?", line.partition("  #")[0]) for line in lines + named]
    return [part.removeprefix("exec ").strip() for parts in split for part in parts]


def test_pages_are_there() -> None:
    assert len(PAGES) > 25
    assert len(sections()) > 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_of_python(page: Path) -> None:
    for source in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("once", "django")):
                module = import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_routines_of_every_page_run(tmp_path: Path) -> None:
    declared = sections()
    make(tmp_path, declared)
    run(tmp_path, "django", "makemigrations", "shop")
    run(tmp_path, "django", "once", "run", "--migrate")
    run(tmp_path, "django", "once", "run", "*")  # of any role
    shown = json.loads(run(tmp_path, "django", "once", "status", "--json"))
    undone = [one["name"] for one in shown["routines"] if one["state"] != "completed"]
    assert undone == []
    assert {one["name"].partition(".")[0] for one in shown["routines"]} >= {
        label for label, _ in declared
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_there(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Command().create_parser("manage.py", "once")
    monkeypatch.setitem(connections.settings, "analytics", connections.settings["default"])
    for line in commands(page.read_text()):
        words = shlex.split(line)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            assert words.pop(0).partition("=")[0] in conf.NAMES
        match words:
            case []:
                pass
            case ["python", "manage.py", "once", *rest] | ["manage.py", "once", *rest]:
                try:
                    parser.parse_args(rest)
                except CommandError as error:
                    pytest.fail(f"{line}: {error}")
            case ["python", "manage.py", "all_tenants_command" | "tenant_command", *_]:
                pass  # of django-tenants
            case ["python", "manage.py", command, *_]:
                assert command in get_commands()
            case ["python", "-m", module, *_]:
                assert find_spec(module), line
            case ["pytest", *places]:
                assert all((ROOT / place).exists() for place in places), line
            case ["sphinx-build", *options, _]:
                assert " ".join(["sphinx-build", *options]) in (ROOT / ".ci" / "run").read_text()
            case ["pip", "install", *_] | ["gunicorn" | "celery", *_]:
                pass
            case _:
                pytest.fail(f"{line}: nobody knows whether this works")
