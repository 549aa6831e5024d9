"""Migrations, written where they are asked for: of routines, and of a project with a history."""

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.project import work

__all__ = ["history", "written"]

_SOURCE = """\
from django.db import migrations

from benchmarks.project import work


def step(apps, schema_editor):
    work.effect({name!r})


class Migration(migrations.Migration):
    dependencies = {after}
    operations = [migrations.RunPython(step)]
"""

_TABLE = """\
migrations.CreateModel("Thing", [("id", models.BigAutoField(
        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
    ))])"""
_COLUMN = 'migrations.AddField("thing", "column{number}", models.IntegerField(default=0))'
_CHANGE = """\
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = {after}
    operations = [{operation}]
"""


@cache
def written(count: int, first: int) -> str:
    """A package with that many migrations, one after the other; its name, for MIGRATION_MODULES."""
    package = f"project_steps_{first}_{count}"
    directory = _directory() / package
    directory.mkdir()
    (directory / "__init__.py").touch()
    before: list[tuple[str, str]] = []
    for name in work.names(count, first):
        module = name.partition(".")[2]
        file = directory / f"m{module}.py"
        file.write_text(_SOURCE.format(name=name, after=before))
        before = [("steps", file.stem)]
    return package


def history(apps: int, migrations: int) -> list[str]:
    """Return the names of new apps, each of so many migrations: a table, then a column each."""
    labels = [f"history{number}" for number in range(apps)]
    for label in labels:
        directory = _directory() / label / "migrations"
        directory.mkdir(parents=True)
        (directory.parent / "__init__.py").touch()
        (directory / "__init__.py").touch()
        model = "from django.db import models\n\n\nclass Thing(models.Model):\n"
        before: list[tuple[str, str]] = []
        for number in range(migrations):
            operation = _COLUMN.format(number=number) if number else _TABLE
            source = _CHANGE.format(after=before, operation=operation)
            (directory / f"m{number:04}.py").write_text(source)
            before = [(label, f"m{number:04}")]
            if number:
                model += f"    column{number} = models.IntegerField(default=0)\n"
        (directory.parent / "models.py").write_text(model)
    return labels


@cache
def _directory() -> Path:
    """Where packages are written: on the path of this process and of those that it starts."""
    directory = tempfile.mkdtemp(prefix="once-benchmarks-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    sys.path.append(directory)
    os.environ["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), directory])
    return Path(directory)
