"""Twelve releases of a project: the code of each, and the rows that its processes write."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter

from tests.project import ROOT
from tests.upgrades.comparison import Row

__all__ = ["GATES", "NEWEST", "environment", "rows", "write"]

NEWEST = 12
#: The last migration of each release, by number; one has none of its own.
_MIGRATIONS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 9, 9: 9, 10: 10, 11: 11, 12: 12}
#: Releases whose last migration begins with a gate; and the migration before that.
GATES = {3: "0002", 5: "0004", 6: "0005", 8: "0008", 11: "0010"}
#: Seed data, by the release that changes it.
_DISCOUNTS = {3: "none", 6: "ten percent", 10: "twenty percent"}

_APP = Path(__file__).parent / "store"


def write(directory: Path, release: int) -> None:
    """Write the code of a release."""
    target = directory / str(release) / "store"
    (target / "migrations").mkdir(parents=True)
    (target / "data").mkdir()
    for file in _APP.glob("*.py"):
        shutil.copy(file, target)
    (target / "migrations" / "__init__.py").touch()
    migrations = sorted((_APP / "migrations").glob("0*.py"))[: _MIGRATIONS[release]]
    for file in migrations:
        shutil.copy(file, target / "migrations")
    (target / "models.py").write_text(_models(migrations))
    discounts = [text for number, text in _DISCOUNTS.items() if number <= release]
    (target / "data" / "discounts.txt").write_text("".join(discounts[-1:]))


def _models(migrations: list[Path]) -> str:
    """Return the code of the models that migrations make."""
    state = ProjectState()
    for file in migrations:
        migration = run_path(str(file))["Migration"](file.stem, _APP.name)
        state = migration.mutate_state(state, preserve=False)
    imports, lines = {"from django.db import models"}, []
    for model in state.models.values():
        lines += [f"class {model.name}(models.Model):"]
        for name, field in model.fields.items():
            text, needed = MigrationWriter.serialize(field)
            imports |= needed
            lines += [f"    {name} = {text}"]
        lines += ["    class Meta:", "        app_label = 'store'"]
        for option in ("constraints", "indexes"):
            text, needed = MigrationWriter.serialize(model.options[option])
            imports |= needed
            lines += [f"        {option} = {text}"]
    return "\n".join([*imports, *lines])


def environment(directory: Path, release: int) -> dict[str, str]:
    """Return what the processes of a release have in their environment."""
    return {
        "PYTHONPATH": os.pathsep.join([str(directory / str(release)), str(ROOT)]),
        "TEST_APPS": "django.contrib.contenttypes,django.contrib.auth,once,store",
        "ONCE_RELEASE": str(release),
    }


def rows(release: int) -> Iterator[tuple[str, Row]]:
    """Yield the rows that processes write while a release is rolled out, each with its table.

    The first two of three are those of old processes, as far as the release allows them.
    """
    for number in (1, 2, 3):
        is_new = number == 3
        key = {"id": release * 100 + number, "origin": release}
        product: Row = {**key}
        if release < 11:
            product["name"] = f"Hat{number // 2}"
        if release > 2 or (release == 2 and is_new):
            product["slug"] = f"hat-{number}"
        if release < 8:
            product["price"] = f"{release}.{number}0"
        else:
            product["cents"] = release * 100 + number
        yield "store_product", product
        if release >= 10:
            sold = {"sold": 1} if release > 10 else {}
            yield "store_stock", {"product_id": key["id"], "origin": release, **sold}
        customer = f"Ann {release}"
        is_linked = release > 4 or (release == 4 and is_new)
        if is_linked and is_new:
            orders = 1 if release == 4 else 3
            yield "store_customer", {"name": customer, "origin": release, "orders": orders}
        order: Row = {**key, "product_id": key["id"]}
        if release < 5:
            order["customer_name"] = customer
        if is_linked:
            order["customer_id"] = customer
        # Two of them are equal until that is not allowed any more.
        place = number if release > 5 else number // 2
        order["reference" if release < 12 else "number"] = f"{release}-{place}"
        yield "store_order", order
