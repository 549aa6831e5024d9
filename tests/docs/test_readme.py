"""Every snippet of the README works as it stands there."""

import re
from pathlib import Path

import pytest

from tests.docs.shop import blocks, make, run
from tests.project import ROOT

README = (ROOT / "README.md").read_text()

ASK = """
import django
from django.test import Client, override_settings

django.setup()
with override_settings(ROOT_URLCONF="health.urls", ALLOWED_HOSTS=["*"]):
    for page in ("/health/", "/staff/health/"):
        print(Client().get(page, {"format": "json"}).content.decode())
"""

PRICES = '[{"model": "shop.currency", "pk": 99, "fields": {"code": "XAU"}}]'


def snippets(place: str) -> list[str]:
    """The snippets that say in their first line to belong there."""
    return [text for named, text in blocks(README) if named == place]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project made of the README's snippets."""
    routines = "\n".join(snippets("shop/routines.py") + snippets("after: shop/routines.py"))
    make(tmp_path, [("shop", routines)])
    [installed] = snippets("settings.py")
    with (tmp_path / "settings.py").open("a") as settings:
        print("others = [app for app in INSTALLED_APPS if app != 'once']", file=settings)
        print(f"{installed}INSTALLED_APPS += others", file=settings)
    (tmp_path / "health").mkdir()
    for place in ("urls.py", "health/urls.py", "conftest.py", "shop/tests.py"):
        [text] = snippets(place)
        (tmp_path / place).write_text(text)
    with (tmp_path / "shop" / "tests.py").open("a") as tests:
        print("from shop.models import Currency", file=tests)
    (tmp_path / "prices.json").write_text(PRICES)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nDJANGO_SETTINGS_MODULE = settings\npython_files = tests.py\n"
    )
    return tmp_path


def test_every_snippet_has_its_place_here() -> None:
    assert README.count("```python\n") == len(blocks(README))
    assert {place for place, _ in blocks(README)} == {
        "settings.py",
        "shop/routines.py",
        "urls.py",
        "health/urls.py",
        "before: shop/apps.py",
        "after: shop/routines.py",
        "conftest.py",
        "shop/tests.py",
    }


def test_routines_run_once(shop: Path) -> None:
    run(shop, "django", "makemigrations", "shop")
    first = run(shop, "django", "once", "run", "--migrate", "--no-color")
    for name in ("load_currencies", "seed_prices", "announce", "ensure_euro", "load_countries"):
        assert f"Running shop.{name}... OK" in first
    assert "shop.backfill_slugs... OK" in first
    assert "No routines to run." in run(shop, "django", "once", "run")
    assert run(shop, "django", "once", "status").count("[X]") == 8
    assert len((shop / "posts").read_text().splitlines()) == 1
    run(shop, "django", "once", "wait", "--timeout", "5")
    run(shop, "django", "check")


def test_health_tells_strangers_less_than_staff(shop: Path) -> None:
    run(shop, "django", "makemigrations", "shop")
    run(shop, "django", "migrate")
    (shop / "ask.py").write_text(ASK)
    strangers, staff = run(shop, "ask").splitlines()
    assert '"Database(alias=\'default\')": "OK"' in strangers
    assert "not done: 7 pending" in strangers
    assert "shop.load_currencies pending" in staff


def test_command_is_called_once(shop: Path) -> None:
    [line] = re.findall(r"^python manage.py (once call .*)$", README, re.MULTILINE)
    run(shop, "django", "makemigrations", "shop")
    run(shop, "django", "migrate")
    assert "Installed 1 object(s)" in run(shop, "django", *line.split())
    assert "done already" in run(shop, "django", *line.split())


def test_test_database_is_filled(shop: Path) -> None:
    run(shop, "django", "makemigrations", "shop")
    run(shop, "django", "test")
    assert "1 passed" in run(shop, "pytest")
    assert not (shop / "posts").exists()


def test_options_settings_and_checks_are_those_of_the_code() -> None:
    import inspect

    from once import checks, conf, routine

    rows = re.findall(r"^\| `(\w+(?:\.\w+)?)` \|", README, re.MULTILINE)
    assert set(inspect.signature(routine).parameters) - {"function"} <= set(rows)
    assert set(conf.NAMES) <= set(rows)
    source = inspect.getsource(checks)
    ids = set(re.findall(r'"(once\.[EW]\d+)"', source))
    assert [row for row in rows if "." in row] == sorted(ids)
