"""The routines as migrations with one ``RunPython`` each, written where they are asked for."""

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.project import work

__all__ = ["written"]

_SOURCE = """\
from django.db import migrations

from benchmarks.project import work


def step(apps, schema_editor):
    work.effect({name!r})


class Migration(migrations.Migration):
    dependencies = {after}
    operations = [migrations.RunPython(step)]
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


@cache
def _directory() -> Path:
    """Where packages are written: on the path of this process and of those that it starts."""
    directory = tempfile.mkdtemp(prefix="once-benchmarks-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    sys.path.append(directory)
    os.environ["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), directory])
    return Path(directory)
