"""once.W005: who queries a database before every app is ready is named."""

import os
import shutil
import sysconfig
import venv

import pytest

from tests.project import APPS, ROOT, Project

pytestmark = pytest.mark.django_db(databases=[])

QUERY = "from django.db import connection\nconnection.cursor().close()\n"
READY = """
from django.apps import AppConfig

class Plant(AppConfig):
    name = "plant"

    def ready(self):
        from django.db import connections
        connections["sqlite"].ensure_connection()
"""

BACK_END = """
from django.db.backends.sqlite3 import base

class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, *args):
        return super().get_new_connection(*args)

    def connect(self):
        super().connect()
"""


@pytest.fixture(params=["sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def checked(project: Project, **environment: str) -> str:
    process = project.manage("check", "--tag", "once", PYTHONWARNINGS="ignore", **environment)
    assert process.finish() == 0, process.output
    return process.output


def installed(project: Project) -> str:
    """What the check says where the project's apps are installed as a package is, by pip."""
    place = project.directory / "venv"
    venv.create(place, symlinks=True)
    packages = sysconfig.get_path("purelib", "venv", {"base": str(place)})
    shutil.move(project.directory / "plant", packages)
    beside = os.pathsep.join([sysconfig.get_path("purelib"), str(ROOT)])
    command = [str(place / "bin" / "python"), "-m", "tests.manage", "check", "--tag", "once"]
    process = project.start(*command, PYTHONPATH=beside, PYTHONWARNINGS="ignore")
    assert process.finish() == 0, process.output
    return process.output


def write(project: Project, name: str, source: str) -> str:
    path = project.directory / "plant" / name
    path.write_text(source)
    return str(path)


def test_w005_for_a_query_at_import(project: Project) -> None:
    path = write(project, "models.py", QUERY)
    output = checked(project)
    assert "plant.models: (once.W005) plant.models queried the database 'default' before" in output
    assert f"{path}, line 2, in <module>." in output
    assert "HINT: " in output
    assert "functools.cache" in output


def test_w005_for_a_query_in_ready(project: Project) -> None:
    path = write(project, "apps.py", READY)
    output = checked(project)
    assert "(once.W005) plant.apps queried the database 'sqlite' before" in output
    assert f"{path}, line 9, in ready." in output


def test_w005_for_a_query_of_an_app_that_is_installed_by_pip(project: Project) -> None:
    write(project, "models.py", QUERY)
    output = installed(project)
    assert "(once.W005) plant.models queried the database 'default' before" in output
    assert "site-packages/plant/models.py, line 2, in <module>." in output


def test_w005_names_no_back_end_that_is_an_app_as_well(project: Project) -> None:
    (project.directory / "plant" / "postgresql").mkdir()
    write(project, "postgresql/__init__.py", "")
    write(project, "postgresql/base.py", BACK_END)
    write(project, "apps.py", READY.replace('"sqlite"', '"default"'))
    project.settings("default['ENGINE'] = 'plant.postgresql'")
    output = installed(project)
    assert "(once.W005) plant.apps queried the database 'default' before" in output


def test_w005_is_silent_about_a_query_once_every_app_is_ready(project: Project) -> None:
    project.routines(
        """
        @routine(scope="process")
        def warm():
            connection.ensure_connection()
        """
    )
    assert "once.W005" not in checked(project)


def test_w005_sees_what_is_imported_after_once_only(project: Project) -> None:
    write(project, "__init__.py", QUERY)
    others = ",".join(app for app in APPS if app != "plant")
    assert "once.W005" in checked(project, TEST_APPS=f"{others},plant")
    assert "once.W005" not in checked(project, TEST_APPS=f"plant,{others}")


def test_nothing_listens_once_every_app_is_ready(project: Project) -> None:
    code = (
        "import django; django.setup()\n"
        "from django.db.backends.signals import connection_created\n"
        "print([key for key, *_ in connection_created.receivers if 'once' in str(key)])"
    )
    process = project.manage("shell", "-v0", "-c", code)
    assert process.finish() == 0, process.output
    assert process.output == "[]\n"
