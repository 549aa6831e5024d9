"""Metrics for prometheus-client: how the routines stand, and the attempts of this process."""

from collections import Counter as Counts
from collections.abc import Iterable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from once import signals
from once.results import Outcome, Result
from once.routines import registry as declarations
from once.routines.base import Routine
from once.status.readiness import PROBE
from once.status.state import RoutineState
from once.status.survey import statuses

__all__ = ["RecordCollector", "register"]

#: Bounds for the seconds of an attempt, up to those of a backfill that takes a day.
_BUCKETS = (0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)


class RecordCollector(Collector):
    """Routines by state, from the record, which each scrape reads: the same in every process.

    ``once_record_up`` is 0 for a database that gives no answer within two seconds, which then has
    no other gauge. So a database that is away breaks no scrape.
    """

    def describe(self) -> list[GaugeMetricFamily]:
        """Return the gauges without their values, because a registration is no time to ask."""
        return [
            GaugeMetricFamily("once_record_up", "1 if all could be read.", labels=["database"]),
            GaugeMetricFamily("once_routines", "Routines.", labels=["database", "state"]),
            GaugeMetricFamily("once_failed_items", "Failed items.", labels=["database"]),
        ]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges, from one look at each database."""
        up, routines, items = gauges = self.describe()
        unread: dict[str, Exception] = {}
        declared = declarations.load()
        listed = statuses(declared, databases=declared.databases, unread=unread, seconds=PROBE)
        states = Counts((status.database, status.state) for status in listed)
        for using in declared.databases:
            names = {using} | {each.name for each in declared.recorded if each.using == using}
            up.add_metric([using], float(unread.keys().isdisjoint(names)))
            if using not in unread:
                for state in RoutineState:
                    routines.add_metric([using, state], states[using, state])
                own = [status for status in listed if status.database == using]
                items.add_metric([using], sum(status.failed_items for status in own))
        return gauges


def register(registry: CollectorRegistry = REGISTRY) -> None:
    """Add all metrics to a registry. Call it once in each process, in ``ready()`` of an app."""
    attempts = Counter(
        "once_attempts",
        "Attempts of this process, by their end.",
        ["routine", "state"],
        registry=registry,
    )
    seconds = Histogram(
        "once_attempt_seconds",
        "Seconds that attempts of this process took.",
        ["routine"],
        buckets=_BUCKETS,
        registry=registry,
    )

    def count(sender: Routine, result: Result, **kwargs: Any) -> None:
        if result.attempt is not None:
            attempts.labels(sender.name, str(result.attempt.state)).inc()
        if result.outcome is not Outcome.RECORDED:  # whose body was called
            seconds.labels(sender.name).observe(result.seconds)

    signals.attempt_finished.connect(count, weak=False)
    registry.register(RecordCollector())
