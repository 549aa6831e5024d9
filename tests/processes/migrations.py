"""Migrations for projects of tests, and the routine that one of them needs."""

from pathlib import Path

from tests.project import Project

__all__ = ["BASE", "FILL", "GATE", "MODELS", "write", "write_gate"]

BASE = """
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Item",
            [
                ("id", models.AutoField(primary_key=True)),
                ("name", models.CharField(max_length=20, default="")),
                ("slug", models.CharField(max_length=20, default="")),
            ],
        )
    ]
"""
GATE = """
from django.db import migrations, models

from once.operations import RunRoutine


class Migration(migrations.Migration):
    dependencies = [("plant", "0001_item")]
    operations = [
        RunRoutine("plant.fill"),
        migrations.AlterField("item", "slug", models.CharField(max_length=20, unique=True)),
        migrations.RemoveField("item", "name"),
    ]
"""
#: The model of the newest code, which has no name any more.
MODELS = """
from django.db import models


class Item(models.Model):
    slug = models.CharField(max_length=20, unique=True)
"""
FILL = """
    def unfilled(apps):
        return apps.get_model("plant", "Item").objects.filter(slug="")


    @routine(over=unfilled, batch_size=2, last_pass=True)
    def fill(items, run):
        hold("fill")
        for item in items:
            item.slug = f"{item.name}-{run.attempt}"
            item.save()
"""


def write(project: Project, name: str, source: str) -> None:
    """Write a migration of ``plant``."""
    directory: Path = project.directory / "plant" / "migrations"
    directory.mkdir(exist_ok=True)
    (directory / "__init__.py").touch()
    (directory / f"{name}.py").write_text(source)


def write_gate(project: Project) -> None:
    """Write a table's migration, the next one, which needs a routine, and that routine."""
    project.routines(FILL)
    (project.directory / "plant" / "models.py").write_text(MODELS)
    write(project, "0001_item", BASE)
    write(project, "0002_slug", GATE)
