"""Every snippet of the README works as it stands there."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.shop import blocks, make, run
from tests.project import ROOT

README = (ROOT / "README.md").read_text()
REFERENCE = ROOT / "docs" / "reference"

PRICES = '[{"model": "shop.currency", "pk": 99, "fields": {"code": "XAU"}}]'


def snippets(place: str) -> list[str]:
    """The snippets that say in their first line to belong there."""
    return [text for named, text in blocks(README) if named == place]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project made of the README's snippets."""
    make(tmp_path, [("shop", "\n".join(snippets("shop/routines.py")))])
    [installed] = snippets("settings.py")
    with (tmp_path / "settings.py").open("a") as settings:
        print("others = [app for app in INSTALLED_APPS if app != 'once']", file=settings)
        print(f"{installed}INSTALLED_APPS += others", file=settings)
    [urls] = snippets("urls.py")
    (tmp_path / "urls.py").write_text(urls)
    (tmp_path / "prices.json").write_text(PRICES)
    return tmp_path


def test_every_snippet_has_its_place_here() -> None:
    assert README.count("```python\n") == len(blocks(README))
    assert {place for place, _ in blocks(README)} == {"settings.py", "shop/routines.py", "urls.py"}


def test_it_is_read_in_five_minutes() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert len(README.split()) <= 1200
    assert lines.index("## Install") < 40


def test_links_of_a_release_lead_to_its_files(tmp_path: Path) -> None:
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    address = "https://forge.invalid/django-once"
    command = [sys.executable, str(ROOT / ".ci" / "links.py"), f"{address}/"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert all(f"{url}/".startswith(f"{address}/") for url in project["urls"].values())
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", (tmp_path / "README.md").read_text())
    assert len(links) == README.count("](")
    for is_picture, link in links:
        kind = "raw" if is_picture else "blob"
        place, _, path = link.partition(f"/{kind}/v{project['version']}/")
        assert place == address
        assert (ROOT / path.partition("#")[0]).is_file(), path


@pytest.mark.long
def test_routines_run_once(shop: Path) -> None:
    run(shop, "django", "makemigrations", "shop")
    first = run(shop, "django", "once", "run", "--migrate", "--no-color")
    for name in ("load_currencies", "announce"):
        assert f"  shop.{name}... OK" in first
    assert "shop.backfill_slugs... OK" in first
    assert "No routines to run." in run(shop, "django", "once", "run")
    assert run(shop, "django", "once", "status").count("[X]") == 3
    assert len((shop / "posts").read_text().splitlines()) == 1
    run(shop, "django", "once", "wait", "--timeout", "5")
    run(shop, "django", "check")


def test_command_is_called_once(shop: Path) -> None:
    [line] = re.findall(r"^python manage.py (once call .*)$", README, re.MULTILINE)
    run(shop, "django", "makemigrations", "shop")
    run(shop, "django", "migrate")
    assert "Installed 1 object(s)" in run(shop, "django", *line.split())
    assert "done already" in run(shop, "django", *line.split())


def test_options_settings_and_checks_are_those_of_the_code() -> None:
    import inspect
    from dataclasses import fields

    from once import Routine, checks, conf

    def rows(page: str, pattern: str) -> list[str]:
        return re.findall(pattern, (REFERENCE / page).read_text(), re.MULTILINE)

    options = {option.name for option in fields(Routine) if option.init} - {"function"}
    assert options <= set(rows("routine.md", r"^\| `(\w+)` \|"))
    assert set(rows("settings.md", r"^\| `(ONCE_\w+)` \|")) == set(conf.NAMES)
    ids = set(re.findall(r'"(once\.[EW]\d+)"', inspect.getsource(checks)))
    assert rows("checks.md", r"^### (once\.\w+)$") == sorted(ids)
