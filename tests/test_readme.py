"""Every snippet of the README works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

MODELS = """
from django.db import models


class Currency(models.Model):
    code = models.CharField(max_length=3)


class Price(models.Model):
    currency = models.OneToOneField(Currency, models.CASCADE)
    amount = models.IntegerField()


class Product(models.Model):
    name = models.CharField(max_length=100)
    slug = models.CharField(max_length=100)


class Country(models.Model):
    code = models.CharField(max_length=2, unique=True)
    name = models.CharField(max_length=100)
"""

SETTINGS = """
SECRET_KEY = "x"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
ROOT_URLCONF = "urls"
"""

COMMAND = """
from django.core.management.base import BaseCommand

from shop.models import Currency


class Command(BaseCommand):
    def handle(self, **options):
        Currency.objects.create(code="CHF")
"""

PRELUDE = """
import csv
from pathlib import Path

from django.core.management import call_command
from django.utils.text import slugify
from shop.models import Country, Currency, Product

import requests

PARTNER = "https://partner.example/"
"""

#: What stands for the library of that name, and for the partner.
REQUESTS = """
def post(url, json, headers, timeout):
    with open("posts", "a") as posts:
        print(headers["Idempotency-Key"], file=posts)
"""

ASK = """
import django
from django.test import Client, override_settings

django.setup()
with override_settings(ROOT_URLCONF="health.urls", ALLOWED_HOSTS=["*"]):
    for page in ("/health/", "/staff/health/"):
        print(Client().get(page, {"format": "json"}).content.decode())
"""

PRICES = '[{"model": "shop.currency", "pk": 99, "fields": {"code": "XAU"}}]'


def blocks(place: str) -> list[str]:
    """The snippets that say in their first line to belong there."""
    return [block for block in BLOCKS if block.startswith(f"# {place}\n")]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project made of the README's snippets."""
    command = tmp_path / "shop" / "management" / "commands" / "import_currencies.py"
    command.parent.mkdir(parents=True)
    command.write_text(COMMAND)
    for package in (tmp_path / "shop", command.parent, command.parent.parent):
        (package / "__init__.py").touch()
    [installed] = blocks("settings.py")
    [urls] = blocks("urls.py")
    [health] = blocks("health/urls.py")
    [conftest] = blocks("conftest.py")
    [tests] = blocks("shop/tests.py")
    routines = "\n".join(blocks("shop/routines.py") + blocks("after: shop/routines.py"))
    (tmp_path / "settings.py").write_text(SETTINGS + installed + 'INSTALLED_APPS.append("shop")\n')
    (tmp_path / "urls.py").write_text(urls)
    (tmp_path / "health").mkdir()
    (tmp_path / "health" / "urls.py").write_text(health)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "shop" / "models.py").write_text(MODELS)
    (tmp_path / "shop" / "routines.py").write_text(PRELUDE + routines)
    (tmp_path / "shop" / "tests.py").write_text(PRELUDE + tests)
    (tmp_path / "requests.py").write_text(REQUESTS)
    (tmp_path / "prices.json").write_text(PRICES)
    (tmp_path / "shop" / "data").mkdir()
    (tmp_path / "shop" / "data" / "countries.csv").write_text("CH,Switzerland\n")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nDJANGO_SETTINGS_MODULE = settings\npython_files = tests.py\n"
    )
    return tmp_path


def run(shop: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=shop,
        env={"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(shop)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_snippet_has_its_place_here() -> None:
    places = {block.partition("\n")[0] for block in BLOCKS}
    assert places == {
        "# settings.py",
        "# shop/routines.py",
        "# urls.py",
        "# health/urls.py",
        "# before: shop/apps.py",
        "# after: shop/routines.py",
        "# conftest.py",
        "# shop/tests.py",
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
