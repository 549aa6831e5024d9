"""The check for django-health-check, on that package's own page."""

import json
import logging
from pathlib import Path

import pytest
from django.db import OperationalError, connections
from django.test import Client, modify_settings, override_settings
from django.urls import path
from health_check.views import HealthCheckView

from once import Routine
from once.databases import database
from once.health_check import Routines
from once.models import State
from once.record import recorder
from once.status import readiness as readiness_module
from tests.support import begin, beside, rows, run, seed
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "sqlite"]),
    pytest.mark.urls(__name__),
]

urlpatterns = [
    path("health/", HealthCheckView.as_view(checks=["once.health_check.Routines"])),
    path("staff/", HealthCheckView.as_view(checks=[(Routines, {"names": True})])),
]


def health(page: str = "health") -> tuple[int, str]:
    """Status code, and what is said of the routines."""
    response = Client().get(f"/{page}/?format=json")
    [(name, told)] = json.loads(response.content).items()
    assert name == "Routines()"
    return response.status_code, told


def test_health_is_well_once_everything_is_done(declared: list[Routine]) -> None:
    declared.append(seed("default"))
    assert health()[0] == 500
    run(declared[0])
    assert health() == (200, "OK")
    rows("default", "DELETE FROM once_completion")
    assert health() == (200, "OK")  # no query any more
    metrics = Client().get("/health/?format=openmetrics").content.decode()
    assert 'django_health_check_status{check="Routines"} 1' in metrics


def test_health_names_what_is_not_done_to_whom_it_may(
    declared: list[Routine], caplog: pytest.LogCaptureFixture
) -> None:
    declared += [
        seed("default", "shop.done"),
        seed("default", "shop.held", retry=False),
        seed("default", "shop.pending"),
        seed("default", "shop.by_hand", startup=False),
    ]
    run(declared[0])
    recorder.close(begin(declared[1]), State.LOST)
    with caplog.at_level(logging.INFO, "once"):
        assert health() == (
            500,
            "Unavailable: Not done: 1 held, 1 pending.",
        )
        assert health()[0] == 500
    # Once, however often a probe asks.
    assert caplog.text.count("event=not_ready") == 1
    assert 'event=not_ready routines="shop.held held, shop.pending pending"' in caplog.text
    assert health("staff") == (
        500,
        "Unavailable: Not done: shop.held held, shop.pending pending.",
    )


@pytest.mark.postgresql
def test_health_leaves_no_connection_open(declared: list[Routine]) -> None:
    declared.append(seed("default"))
    sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    before = rows("default", sessions)
    assert health()[0] == 500
    wait_until(lambda: rows("default", sessions) == before, what="the end of its session")


def test_thread_that_reads_leaves_no_file_open(tmp_path: Path) -> None:
    def is_closed() -> bool:
        connection = connections["sqlite"]  # of this thread, and not in memory
        connection.settings_dict = {**connection.settings_dict, "NAME": str(tmp_path / "db")}
        with database("sqlite").reading():
            connection.ensure_connection()
        return connection.connection is None

    with beside(is_closed) as answer:
        assert answer.result(30)


def test_health_says_nothing_of_the_database_that_is_down(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> bool:
        raise OperationalError("password of shop at 10.0.0.7 is wrong")

    declared.append(seed("default"))
    monkeypatch.setattr(readiness_module, "is_done", refuse)
    told = "Unavailable: Whether the routines are done cannot be told."
    assert health() == health("staff") == (500, told)


@modify_settings(INSTALLED_APPS={"append": "health_check"})
@override_settings(
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
)
def test_health_is_a_page_for_people(declared: list[Routine]) -> None:
    declared.append(seed("default"))
    response = Client().get("/health/", headers={"accept": "text/html"})
    assert response.status_code == 500
    assert "Not done: 1 pending." in response.content.decode()
