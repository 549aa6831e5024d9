"""Prove that a deployment can keep the promise, by the protocol's own means and sessions.

Nothing of it stays in a database, nothing waits without a deadline, and routines run on meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from once.databases import database
from once.doctor import lock_probes, record_probes
from once.doctor.deployment import DEADLINE, Deployment, Finding, Level
from once.exceptions import OnceError
from once.routines.registry import Registry
from once.text import one_line

SCHEMA = 1

Probe = Callable[[Deployment], Iterator[Finding]]

#: Probes that must find no fault before the next one.
_FIRST: tuple[Probe, ...] = (
    record_probes.server,
    record_probes.tables,
    lock_probes.pool,
    lock_probes.exclusion,
)
_THEN: tuple[Probe, ...] = (
    lock_probes.eviction,
    lock_probes.endurance,
    lock_probes.fencing,
    record_probes.gates,
    record_probes.privileges,
    record_probes.routines,
)


def examine(registry: Registry, aliases: Iterable[str]) -> Iterator[Finding]:
    """Examine databases one after the other, and yield each finding as it is found."""
    for using in aliases:
        try:
            deployment = Deployment(database=database(using), registry=registry)
        except ImproperlyConfigured as error:
            yield Finding(id="server", database=using, level=Level.FAULT, message=str(error))
        else:
            yield from _examine(deployment)


def _examine(deployment: Deployment) -> Iterator[Finding]:
    for probe in (*_FIRST, *_THEN):
        has_fault = False
        for finding in _survive(probe, deployment):
            yield finding
            has_fault |= finding.level is Level.FAULT
        if has_fault and probe in _FIRST:
            return


def _survive(probe: Probe, deployment: Deployment) -> Iterator[Finding]:
    """Yield what a probe finds, and what keeps it from finding more."""
    name = probe.__name__
    try:
        yield from probe(deployment)
    except TimeoutError:
        message = f"No answer within {DEADLINE:.0f} s."
        yield deployment.fault(name, message, "See what keeps the server, or a pooler, busy.")
    except OnceError as error:
        yield deployment.fault(name, str(error))
    except Error as error:
        if deployment.database.is_in_the_way(error):
            obstacle = deployment.database.obstacle(error)
            message = f"Not examined, for another session is in the way: {obstacle}"
            yield deployment.warning(name, message, "Run this again when that is done.")
        else:
            yield deployment.fault(name, one_line(error), deployment.advice(error))


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the one object that ``--json`` prints; its keys are a contract."""
    return {
        "schema": SCHEMA,
        "healthy": all(finding.level is not Level.FAULT for finding in findings),
        "counts": dict(Counter(str(finding.level) for finding in findings)),
        "findings": [asdict(finding) for finding in findings],
    }
