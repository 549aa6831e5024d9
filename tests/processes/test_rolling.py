"""Rolling deploys: old and new servers side by side under load, from release to release."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes.http import Serve, Server
from tests.project import ROOT, Project
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(databases=[])

#: The migrations of all releases, with the release that brings each. What a release drops, the code
#: of the release before does not use any more.
MIGRATIONS = {
    "0001_item": (
        1,
        'migrations.CreateModel("Item", [("id", models.BigAutoField(primary_key=True)), '
        '("name", models.CharField(max_length=50, db_default=""))])',
    ),
    "0002_slug": (
        2,
        'migrations.AddField("item", "slug", models.CharField(max_length=50, null=True))',
    ),
    "0003_slug_not_null": (
        3,
        'RunRoutine("plant.fill_slugs"), '
        'migrations.AlterField("item", "slug", models.CharField(max_length=50))',
    ),
    "0004_code": (
        3,
        'migrations.AddField("item", "code", models.CharField(max_length=50, db_default=""))',
    ),
    "0005_code_unique": (
        4,
        'RunRoutine("plant.fill_codes"), '
        'migrations.AlterField("item", "code", models.CharField(max_length=50, unique=True))',
    ),
    "0006_drop_name": (
        5,
        'RunRoutine("plant.fill_slugs"), RunRoutine("plant.fill_codes"), '
        'migrations.RemoveField("item", "name")',
    ),
}
#: By release, the columns that its code writes, and of these the ones that any row must have.
CODE = {
    1: (["name"], ["name"]),
    2: (["name", "slug"], ["name"]),
    3: (["name", "slug", "code"], ["slug"]),
    4: (["slug", "code"], ["slug", "code"]),
    5: (["slug", "code"], ["slug", "code"]),
}
#: By release, the routine that it brings; its last pass is in the release after.
ROUTINES = {2: "fill_slugs", 3: "fill_codes"}

SETTINGS = """
from tests.settings import *

ROOT_URLCONF = "plant.urls"
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 60}
"""
MODELS = """
from django.db import models


class Item(models.Model):
    id = models.BigAutoField(primary_key=True)
"""
URLS = """
from uuid import uuid4

from django.db import transaction
from django.http import HttpResponse
from django.urls import path

from plant.models import Item
from tests.urls import urlpatterns

WRITTEN, NEEDED = {code}


@transaction.atomic
def visit(request):
    # Because it reads before it writes, it holds a lock of the table when it asks for another.
    last = Item.objects.last()
    if last is not None:
        assert all(getattr(last, column) for column in NEEDED), vars(last)
    Item.objects.create(**{{column: f"{{column}}-{{uuid4().hex}}" for column in WRITTEN}})
    return HttpResponse()


urlpatterns = [*urlpatterns, path("visit/", visit)]
"""
FILL = """
from once import routine
from tests.shop import steps
from tests.shop.handshake import hold


def fill(items, column):
    hold(f"fill_{{column}}s")
    for item in items:
        setattr(item, column, f"{{column}}-of-{{item.pk}}")
        item.save(update_fields=[column])


@routine(
    over=lambda apps: apps.get_model("plant", "Item").objects.filter(slug=None),
    batch_size=10,
    last_pass=True,
)
def fill_slugs(items):
    fill(items, "slug")


if {release} > 2:

    @routine(
        over=lambda apps: apps.get_model("plant", "Item").objects.filter(code=""),
        batch_size=10,
        last_pass=True,
    )
    def fill_codes(items):
        fill(items, "code")
"""

#: Requests that wait for the table.
WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = to_regclass('plant_item')"


@dataclass(frozen=True)
class Release:
    """The code of a release, in a directory of its own."""

    project: Project
    number: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join([str(self._directory), str(ROOT)]),
            "DJANGO_SETTINGS_MODULE": "plant.settings",
            "ONCE_RELEASE": str(self.number),
        }

    @property
    def _directory(self) -> Path:
        return self.project.directory / str(self.number)

    def write(self) -> None:
        plant = self._directory / "plant"
        (plant / "migrations").mkdir(parents=True)
        columns, _ = CODE[self.number]
        fields = [f"    {column} = models.CharField(max_length=50)\n" for column in columns]
        files = {
            "__init__": "",
            "settings": SETTINGS,
            "models": MODELS + "".join(fields),
            "urls": URLS.format(code=CODE[self.number]),
            "routines": FILL.format(release=self.number) if self.number > 1 else "",
            "migrations/__init__": "",
        }
        before: list[tuple[str, str]] = []
        for name, (release, operations) in MIGRATIONS.items():
            if release <= self.number:
                files[f"migrations/{name}"] = (
                    "from django.db import migrations, models\n"
                    "from once.operations import RunRoutine\n"
                    "class Migration(migrations.Migration):\n"
                    f"    dependencies = {before}\n"
                    f"    operations = [{operations}]\n"
                )
            before = [("plant", name)]
        for name, source in files.items():
            (plant / f"{name}.py").write_text(source)


class Load:
    """Requests to a server, some at once, until they are to end."""

    def __init__(self, server: Server, threads: int) -> None:
        self.server = server
        self.statuses: list[int] = []
        self._is_over = threading.Event()
        # Because a test that fails ends none of them, they end with its process.
        self._threads = [threading.Thread(target=self._visit, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def more(self, count: int = 10) -> None:
        """Wait until so many more requests are answered."""
        wanted = len(self.statuses) + count
        wait_until(
            lambda: self._has_failed() or len(self.statuses) >= wanted,
            what=lambda: f"{count} answers: {self.server.output}",
        )
        assert not self._has_failed(), (self.statuses, self.server.output)

    def end(self) -> None:
        """Send no more; each was answered."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        assert not self._has_failed(), (self.statuses, self.server.output)

    def _has_failed(self) -> bool:
        return any(status != 200 for status in self.statuses)

    def _visit(self) -> None:
        while not (self._is_over.is_set() or self._has_failed()):
            self.statuses.append(self.server.get("/visit/"))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_no_request_fails_and_no_row_is_left_without_its_value(
    project: Project, serve: Serve
) -> None:
    stragglers = {}
    old: Load | None = None
    for number in CODE:
        release = Release(project, number)
        release.write()
        migrate(release, old)
        server = serve("gunicorn", **release.environment)
        server.wait_for(200)
        new = Load(server, 1 if project.is_sqlite else 2)
        new.more()
        if old is not None:
            # Side by side. In release 2, more rows of old code than a last pass does.
            old.more(110 if number == 2 else 10)
            old.end()
            assert old.server.stop() == 0, old.server.output
        if number in ROUTINES:
            empty = "slug IS NULL" if number == 2 else "code = ''"
            stragglers[number] = len(project.rows(f"SELECT id FROM plant_item WHERE {empty}"))
        old = new
    assert old is not None
    old.end()
    assert [count > 0 for count in stragglers.values()] == [True, True]
    assert stragglers[2] > 100
    rows = project.rows("SELECT slug, code FROM plant_item")
    assert all(all(row) for row in rows)
    assert len({code for _, code in rows}) == len(rows)
    assert project.completions() == ["plant.fill_codes", "plant.fill_slugs"]


def migrate(release: Release, old: Load | None) -> None:
    """Migrate to a release as its job does, while servers of the one before answer requests."""
    project, last = release.project, f"last{release.number}"
    routine = ROUTINES.get(release.number, "")
    if project.is_sqlite or old is None:  # where all writers wait for a body
        project.release(routine)
        project.release(last)
    job = project.once(
        *("run", "--migrate"),
        TEST_HOLD=f"once.migrating.gatekeeper:confirm=after:{last}",
        **release.environment,
    )
    if old is not None and not project.is_sqlite:
        if release.number > min(ROUTINES):
            project.wait_for(last)
            wait_until(lambda: project.rows(WAITING), what="a request that waits for the table")
            project.release(last)
        if routine:
            project.wait_for(routine)
            old.more()
            project.release(routine)
    assert job.finish() == 0, job.output
