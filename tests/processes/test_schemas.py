"""Schemas of one database: each has its own record, and none excludes another."""

import importlib.util
import sys
import textwrap

import pytest

from tests.processes.http import Serve
from tests.project import Process, Project
from tests.servers import missing

pytestmark = pytest.mark.parametrize("is_migrated", [False])


@pytest.fixture
def kind() -> str:
    return "postgresql"


def test_search_path(project: Project) -> None:
    project.settings("options['options'] = f'-c search_path={os.environ[\"SCHEMA\"]}'")
    project.routines("""
        @routine
        def seed():
            effect(os.environ["SCHEMA"])
            hold("seed")
    """)
    schemas = ["tenant1", "tenant2"]
    for schema in schemas:
        project.execute(f"CREATE SCHEMA {schema}")
    commands = [project.once("run", "--migrate", SCHEMA=schema) for schema in schemas * 2]
    project.wait_for("seed", processes=2)  # one of each schema, at the same time
    project.release("seed")
    assert [one.finish() for one in commands] == [0] * 4, commands[0].output
    for schema in schemas:
        assert project.rows(f"SELECT name FROM {schema}.shop_effect") == [(schema,)]
        assert project.rows(f"SELECT number, state FROM {schema}.once_attempt") == [
            (1, "succeeded")
        ]
    assert len(project.reached("seed")) == 2


#: Runs a command in a schema, as the commands of django-pgschemas do.
IN_SCHEMA = """
import sys
import django
django.setup()
from django.core.management import CommandError, call_command
from tests.schemas.base import activate
activate(sys.argv[1])
try:
    call_command(*sys.argv[2:])
except CommandError as error:
    print(error)
    sys.exit(error.returncode)
"""
FAILS_FIRST = """
    @routine
    def seed(run):
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_schema()")
            [name] = cursor.fetchone()
        effect(name)
        if run.attempt == 1:
            raise ValueError("once")
        hold(name)
"""


def in_schema(project: Project, schema: str, *arguments: str, **environment: str) -> Process:
    """Start a command in a schema that a variable of its process names."""
    command = (sys.executable, "-c", IN_SCHEMA, schema, *arguments)
    return project.start(*command, **environment)


def test_schema_in_a_context_variable(project: Project) -> None:
    project.settings("default['ENGINE'] = 'tests.schemas'")
    project.routines(FAILS_FIRST)
    schemas = ["tenant1", "tenant2"]
    for schema in schemas:
        project.execute(f"CREATE SCHEMA {schema}")
        failing = in_schema(project, schema, "once", "run", "--migrate")
        assert failing.finish() == 1, failing.output
    commands = [in_schema(project, schema, "once", "run") for schema in schemas * 2]
    for schema in schemas:  # at the same time, and one of each
        project.wait_for(schema)
        assert len(project.reached(schema)) == 1
    for schema in schemas:
        project.release(schema)
    assert [one.finish() for one in commands] == [0] * 4, [one.output for one in commands]
    for schema in schemas:
        assert project.rows(f"SELECT name FROM {schema}.shop_effect") == [(schema,)]
        assert project.rows(f"SELECT number, state FROM {schema}.once_attempt ORDER BY 1") == [
            (1, "failed"),
            (2, "succeeded"),
        ]


def test_schema_that_a_second_connection_does_not_have_is_refused(project: Project) -> None:
    project.settings("default['ENGINE'] = 'tests.schemas'")
    project.routines(FAILS_FIRST)
    project.execute("CREATE SCHEMA tenant1")
    migrating = in_schema(project, "tenant1", "migrate", "-v0", TEST_SCHEMA_OF="thread")
    assert migrating.finish() == 0, migrating.output
    elsewhere = project.manage("migrate", "-v0")
    assert elsewhere.finish() == 0, elsewhere.output
    for output in ("ValueError: once", "belongs to another schema than its record"):
        command = in_schema(project, "tenant1", "once", "run", TEST_SCHEMA_OF="thread")
        assert command.finish() == 1
        assert output in command.output


TENANTS = """
default["ENGINE"] = "django_tenants.postgresql_backend"
SHARED_APPS = ["django_tenants", "customers", "django.contrib.contenttypes", "once"]
TENANT_APPS = ["django.contrib.contenttypes", "once", "tests.shop", "plant"]
INSTALLED_APPS = [*dict.fromkeys(SHARED_APPS + TENANT_APPS)]
TENANT_MODEL = "customers.Customer"
TENANT_DOMAIN_MODEL = "customers.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
"""
CUSTOMERS = """
from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Customer(TenantMixin):
    name = models.CharField(max_length=100)


class Domain(DomainMixin):
    pass
"""
SHARED = """
    from once import routine
    from customers.models import Customer

    @routine
    def found():
        for name in ("tenant1", "tenant2"):
            Customer(schema_name=name, name=name).save()  # creates its schema, and migrates it
"""


def test_django_tenants(project: Project, serve: Serve) -> None:
    if importlib.util.find_spec("django_tenants") is None:
        missing("django_tenants")
    project.settings(TENANTS)
    customers = project.directory / "customers"
    customers.mkdir()
    (customers / "__init__.py").touch()
    (customers / "models.py").write_text(CUSTOMERS)
    (customers / "routines.py").write_text(textwrap.dedent(SHARED))
    project.routines("""
        from tests.shop.models import Counted

        @routine(startup=False, atomic=False)
        def seed():
            effect(connection.schema_name)

        @routine(startup=False, over=Counted.objects.all)
        def count(rows):
            for row in rows:
                row.counter += 1
                row.save()
            hold(connection.schema_name)
    """)
    assert project.manage("makemigrations", "customers").finish() == 0
    commands = [project.once("run", "--migrate", "customers") for _ in range(3)]
    assert [one.finish() for one in commands] == [0] * 3, [one.output for one in commands]
    schemas = ["tenant1", "tenant2"]
    for schema in schemas:
        project.execute(f"INSERT INTO {schema}.shop_counted (counter) VALUES (0), (0)")
    commands = [
        project.manage("tenant_command", "once", "run", "plant", f"--schema={schema}")
        for schema in schemas * 2
    ]
    for schema in schemas:  # neither waits for the other
        project.wait_for(schema)
    server = serve("gunicorn")  # for it there is only what all tenants share
    server.wait_for(200)
    for schema in schemas:
        project.release(schema)
    assert [one.finish() for one in commands] == [0] * 4, [one.output for one in commands]
    again = project.manage("all_tenants_command", "--no-public", "once", "run", "plant")
    assert again.finish() == 0, again.output
    assert again.output.count("plant.seed is done already") == 2
    attempts = "once_attempt WHERE state = 'succeeded' ORDER BY routine"
    for schema in schemas:
        assert project.rows(f"SELECT name FROM {schema}.shop_effect") == [(schema,)]
        assert project.rows(f"SELECT counter FROM {schema}.shop_counted") == [(1,), (1,)]
        assert project.rows(f"SELECT routine, number FROM {schema}.{attempts}") == [
            ("plant.count", 1),
            ("plant.seed", 1),
        ]
        assert len(project.reached(schema)) == 1
    assert project.rows(f"SELECT routine, number FROM public.{attempts}") == [
        ("customers.found", 1)
    ]
