"""The metrics: what a scrape tells, and that no database breaks one."""

import pytest
from django.db import connections
from prometheus_client import CollectorRegistry, generate_latest

from once import Routine, content
from once.prometheus import register
from tests.behaviour.test_admin import failing
from tests.behaviour.test_failed_items import Fill
from tests.support import beside, run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry as the default one, for one test."""
    from once import signals

    monkeypatch.setattr(
        signals.attempt_finished, "receivers", [*signals.attempt_finished.receivers]
    )
    registry = CollectorRegistry(auto_describe=True)
    register(registry)
    return registry


def scrape(registry: CollectorRegistry) -> list[str]:
    return generate_latest(registry).decode().splitlines()


def test_gauges_show_how_the_routines_stand(
    using: str, declared: list[Routine], registry: CollectorRegistry
) -> None:
    declared += [seed(using, "shop.a"), seed(using, "shop.b"), failing(using)]
    warm = Routine(function=lambda: None, name="shop.warm", scope="process")
    declared += [Fill(using, 2, 5).routine(), warm]
    run(*declared[:-1], keep_going=True)
    run(seed(using, "shop.gone"))
    told = scrape(registry)
    assert f'once_record_up{{database="{using}"}} 1.0' in told
    for state, count in {"completed": 3, "failed": 1, "unknown": 1, "held": 0}.items():
        assert f'once_routines{{database="{using}",state="{state}"}} {count}.0' in told
    assert f'once_failed_items{{database="{using}"}} 2.0' in told


def test_attempts_are_counted_by_their_end_and_measured_if_a_body_was_called(
    using: str, declared: list[Routine], registry: CollectorRegistry
) -> None:
    declared += [failing(using), seed(using, "shop.found", done_if=lambda: True)]
    run(*declared, keep_going=True)
    run(declared[0])
    told = scrape(registry)
    assert 'once_attempts_total{routine="shop.bad",state="failed"} 2.0' in told
    assert 'once_attempts_total{routine="shop.found",state="succeeded"} 1.0' in told
    assert 'once_attempt_seconds_count{routine="shop.bad"} 2.0' in told
    assert not [
        line for line in told if line.startswith('once_attempt_seconds_count{routine="shop.f')
    ]


def test_database_that_is_away_breaks_no_scrape(
    declared: list[Routine], registry: CollectorRegistry
) -> None:
    declared += [seed("default"), seed("sqlite", "shop.other")]
    here = connections["sqlite"]
    lost = here.copy()
    lost.settings_dict["NAME"] = "/nowhere/at.all"
    connections["sqlite"] = lost
    try:
        told = scrape(registry)
    finally:
        connections["sqlite"] = here
    assert 'once_record_up{database="sqlite"} 0.0' in told
    assert 'once_record_up{database="default"} 1.0' in told
    assert not [line for line in told if 'once_routines{database="sqlite"' in line]
    assert 'once_record_up{database="sqlite"} 1.0' in scrape(registry)


def test_routine_whose_scope_cannot_be_read_is_no_error_of_the_scrape(
    using: str, declared: list[Routine], registry: CollectorRegistry
) -> None:
    declared += [seed(using), seed(using, "shop.lost", scope=content("/nowhere/rates.csv"))]
    told = scrape(registry)
    assert f'once_record_up{{database="{using}"}} 0.0' in told
    assert f'once_routines{{database="{using}",state="pending"}} 1.0' in told


def test_registration_asks_no_database(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because ``ready()`` is too early for that."""
    declared.append(seed("default"))
    connections["default"].close()
    monkeypatch.setattr(connections["default"], "connect", None)
    register(CollectorRegistry(auto_describe=True))


def test_scrape_in_a_thread_leaves_no_connection_open(
    declared: list[Routine], registry: CollectorRegistry
) -> None:
    """As the server of prometheus-client scrapes, where Django closes none."""

    def ask() -> bool:
        scrape(registry)
        return connections["default"].connection is None

    declared.append(seed("default"))
    with beside(ask) as answer:
        assert answer.result()
