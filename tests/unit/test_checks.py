"""Each system check: that it speaks, with a hint, and that it is silent without cause."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings

from once import Routine, Run, conf, content
from once.databases import database
from once.databases.mysql import MySQL


class NoTables:
    """A router that keeps the tables of once out of every database."""

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool | None:
        return False if app_label == "once" else None


def run_checks() -> list[CheckMessage]:
    found = checks.run_checks(tags=["once"])
    for message in found:
        assert message.hint, message
    return found


def only(identifier: str) -> CheckMessage:
    found = run_checks()
    assert [message.id for message in found] == [identifier]
    return found[0]


def seed(using: str = "default", *, takes_run: bool = True) -> Routine:
    def with_run(run: Any) -> None: ...

    return Routine(
        function=with_run if takes_run else lambda: None, name=f"shop.{using}", using=using
    )


@pytest.fixture(autouse=True)
def _without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in conf.NAMES:
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_wrong(declared: list[Routine]) -> None:
    declared += [seed("default", takes_run=False), seed("sqlite")]
    assert run_checks() == []


@override_settings(ONCE_STARTUP="on", ONCE_RELEASE=3)
def test_e001_for_each_invalid_setting(declared: list[Routine]) -> None:
    first, second = run_checks()
    assert (first.id, second.id) == ("once.E001", "once.E001")
    assert "The setting ONCE_STARTUP must be" in first.msg
    assert "The setting ONCE_RELEASE must be" in second.msg
    assert "Correct ONCE_STARTUP" in str(first.hint)


def test_e001_for_an_environment_variable(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_STARTUP", "on")
    assert "The environment variable ONCE_STARTUP must be" in only("once.E001").msg


def test_e002_for_an_alias_that_is_not_in_databases(declared: list[Routine]) -> None:
    declared.append(seed("gone"))
    message = only("once.E002")
    assert "'gone' of the routines shop.gone is not in DATABASES" in message.msg
    assert message.level == checks.ERROR


def test_e003_for_a_vendor_without_a_lock(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**connections.settings["sqlite"], "ENGINE": "django.db.backends.dummy"}
    monkeypatch.setitem(connections.settings, "other", other)
    declared.append(seed("other"))
    message = only("once.E003")
    assert "of the kind 'unknown'" in message.msg
    assert message.hint == "Supported kinds: mysql, postgresql, sqlite."


def test_e004_for_an_old_driver(declared: list[Routine], monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper: Any = connections["default"]
    monkeypatch.setattr(wrapper.Database, "__version__", "2.9.10 (dt dec pq3 ext lo64)")
    declared.append(seed())
    message = only("once.E004")
    assert message.msg == "Database 'default': psycopg 2.9.10 is in use; psycopg 3 is needed."
    assert "django-once[postgresql]" in str(message.hint)
    with pytest.raises(ImproperlyConfigured, match="psycopg 3 is needed"):
        database("default")  # where no check runs


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        (ModuleType("MySQLdb"), ""),
        (ModuleType("pymysql"), "the driver pymysql is in use; mysqlclient is needed"),
        (None, "the driver types is in use; mysqlclient is needed"),
    ],
    ids=["mysqlclient", "PyMySQL", "connector"],
)
def test_e004_for_a_driver_that_stands_for_mysqlclient(
    driver: ModuleType | None, problem: str
) -> None:
    connection = SimpleNamespace(Database=driver, vendor="mysql")
    found, hint = MySQL.misfit(connection) or ("", "django-once[mysql]")
    assert found == problem
    assert "django-once[mysql]" in hint


@override_settings(DATABASE_ROUTERS=[NoTables()])
def test_e005_for_a_router_that_keeps_the_tables_out(declared: list[Routine]) -> None:
    declared.append(seed())
    message = only("once.E005")
    assert "'default', where the routines shop.default need them" in message.msg
    assert "allow_migrate()" in str(message.hint)


def test_e006_for_a_database_that_commits_nothing_by_itself(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "AUTOCOMMIT", False)
    declared.append(seed())
    message = only("once.E006")
    assert "nothing that they do would be committed" in message.msg
    assert "Remove AUTOCOMMIT" in str(message.hint)


def test_e009_for_tenants_without_a_record(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed())
    with override_settings(TENANT_APPS=["shop"]):
        assert run_checks() == []  # another package's setting
    # By this method a connection of django-tenants is known.
    monkeypatch.setattr(connections["default"], "set_tenant", None, raising=False)
    with override_settings(TENANT_APPS=["shop"]):
        message = only("once.E009")
    assert "what ran for one would count as done for all" in message.msg
    assert "SHARED_APPS" in str(message.hint)
    with override_settings(TENANT_APPS=["shop", "once.apps.OnceConfig"]):
        assert run_checks() == []


def test_e007_for_a_release_that_is_not_set(declared: list[Routine]) -> None:
    declared.append(Routine(function=lambda: None, name="shop.seed", scope="release"))
    message = only("once.E007")
    assert "Routine 'shop.seed' has scope=\"release\", but ONCE_RELEASE is unset" in message.msg
    assert (message.obj, message.level) == ("shop.seed", checks.ERROR)
    assert "settings or the environment of every process" in str(message.hint)


@override_settings(ONCE_RELEASE="2024.1")
def test_release_that_is_set_is_no_problem(declared: list[Routine]) -> None:
    declared.append(Routine(function=lambda: None, name="shop.seed", scope="release"))
    assert run_checks() == []


def test_e008_for_a_pattern_without_a_file(declared: list[Routine]) -> None:
    scope = content("gone/*.csv")
    declared.append(Routine(function=lambda: None, name="shop.seed", scope=scope))
    message = only("once.E008")
    assert "Routine 'shop.seed' has scope=content('gone/*.csv'), but no file" in message.msg
    assert (message.obj, message.level) == ("shop.seed", checks.ERROR)
    assert "relative to the directory of the module" in str(message.hint)


def test_pattern_with_a_file_is_no_problem(declared: list[Routine]) -> None:
    scope = content("test_*.py")
    declared.append(Routine(function=lambda: None, name="shop.seed", scope=scope))
    assert run_checks() == []


def limited(using: str) -> Routine:
    def body(rows: list[int], run: Run) -> None: ...

    return Routine(
        function=body, name="shop.seed", using=using, over=lambda: [1], statement_timeout=3
    )


def test_w002_for_a_database_without_a_statement_timeout(declared: list[Routine]) -> None:
    declared.append(limited("sqlite"))
    message = only("once.W002")
    assert message.msg == "The database 'sqlite' of shop.seed knows no statement timeout."
    assert (message.obj, message.level) == ("shop.seed", checks.WARNING)
    assert message.hint == "Remove statement_timeout=; it is for PostgreSQL."


def test_statement_timeout_on_postgresql_is_no_problem(declared: list[Routine]) -> None:
    declared.append(limited("default"))
    assert run_checks() == []


def test_w006_for_an_old_name_without_the_label_of_an_app(declared: list[Routine]) -> None:
    options: dict[str, Any] = {"renamed_from": ["shop.announce", "announce"]}
    declared.append(Routine(function=lambda: None, name="shop.tell", **options))
    message = only("once.W006")
    assert message.msg.startswith("shop.tell is renamed_from 'announce', which has no dot")
    assert (message.obj, message.level) == ("shop.tell", checks.WARNING)
    assert 'Write the whole old name, "shop.announce"' in str(message.hint)


def test_w003_where_uwsgi_runs_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("once.startup.forking.lacks_threads", lambda: True)
    message = only("once.W003")
    assert message.level == checks.WARNING
    assert "without --enable-threads" in message.msg
    assert "Start uWSGI with --enable-threads" in str(message.hint)


def test_w001_for_a_body_that_does_not_know_its_database(declared: list[Routine]) -> None:
    declared.append(seed("sqlite", takes_run=False))
    message = only("once.W001")
    assert "body of shop.sqlite takes no `run`" in message.msg
    assert message.obj == "shop.sqlite"
    assert message.level == checks.WARNING
    assert "run.using" in str(message.hint)


def test_process_routine_needs_no_database(declared: list[Routine]) -> None:
    declared.append(Routine(function=lambda: None, name="x", scope="process"))
    with override_settings(DATABASE_ROUTERS=[NoTables()]):
        assert run_checks() == []
