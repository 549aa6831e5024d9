"""A shop made of snippets: what a page of the documentation has its reader write, in a project."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MODELS", "SETTINGS", "blocks", "make", "run"]

_BLOCK = re.compile(r"```python\n# ([^\n]*)\n(.*?)```", re.DOTALL)

MODELS = """
from django.db import models


class Currency(models.Model):
    code = models.CharField(max_length=3)
    region = models.CharField(max_length=4, default="")


class Price(models.Model):
    currency = models.OneToOneField(Currency, models.CASCADE)
    amount = models.IntegerField()


class Product(models.Model):
    name = models.CharField(max_length=100)
    slug = models.CharField(max_length=100)


class Country(models.Model):
    code = models.CharField(max_length=2, unique=True)
    name = models.CharField(max_length=100)


class Region(models.Model):
    code = models.CharField(max_length=4)


class Tenant(models.Model):
    pass
"""

SETTINGS = """
SECRET_KEY = "x"
DATABASES = {
    alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{alias}.sqlite3"}
    for alias in ("default", "analytics", "tenant_acme")
}
ROOT_URLCONF = "urls"
CURRENCIES = ["EUR", "JPY"]
"""

_COMMAND = """
from django.core.management.base import BaseCommand

from shop.models import Currency


class Command(BaseCommand):
    def handle(self, **options):
        Currency.objects.create(code="CHF")
"""

#: What a reader has imported.
_PRELUDE = """
import csv
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import transaction
from django.db.models.functions import Lower
from django.utils.text import slugify
from once import content, routine, state
from shop.models import Country, Currency, Price, Product, Region, Tenant

import letters
import rates
import requests
import store

PARTNER = "https://partner.example/"
"""

#: What stands for libraries, tasks and partners of the reader's.
_OUTSIDE = {
    "requests": """
class Answer:
    def raise_for_status(self):
        pass


def post(url, json, headers, timeout):
    with open("posts", "a") as posts:
        print(headers["Idempotency-Key"], file=posts)
    return Answer()
""",
    "rates": "def delay(): pass\n\n\ndef apply_async(task_id): assert task_id\n",
    "store": "def put(path, value, only_if_newer_than): assert only_if_newer_than\n",
    "letters": "def send_all(reference): assert reference\n",
}


def blocks(page: str) -> list[tuple[str, str]]:
    """The snippets of a page, each with the place that its first line names."""
    return _BLOCK.findall(page)


def make(directory: Path, routines: Iterable[tuple[str, str]]) -> None:
    """A project in which apps have routines.

    Args:
        directory: where.
        routines: label of an app and source of its routines; the models are those of ``shop``.

    """
    (directory / "settings.py").write_text(SETTINGS)
    (directory / "urls.py").write_text("urlpatterns = []\n")
    command = directory / "shop" / "management" / "commands" / "import_currencies.py"
    command.parent.mkdir(parents=True)
    command.write_text(_COMMAND)
    for package in (command.parent, command.parent.parent, directory / "shop"):
        (package / "__init__.py").touch()
    (directory / "shop" / "models.py").write_text(MODELS)
    for name, source in _OUTSIDE.items():
        (directory / f"{name}.py").write_text(source)
    labels = ["shop"]
    for label, source in routines:
        app = directory / label
        (app / "data").mkdir(parents=True, exist_ok=True)
        (app / "__init__.py").touch()
        (app / "data" / "countries.csv").write_text("CH,Switzerland\n")
        (app / "routines.py").write_text(_PRELUDE + source)
        labels += [label] if label != "shop" else []
    with (directory / "settings.py").open("a") as settings:
        contrib = ["django.contrib.contenttypes", "django.contrib.auth"]
        print(f"INSTALLED_APPS = {[*contrib, 'once', *labels]}", file=settings)


def run(directory: Path, *command: str) -> str:
    """Run a module of Python there; what it prints to stdout."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env={"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
