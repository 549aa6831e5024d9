"""A check for django-health-check, version 4: are the start-up routines done?"""

import dataclasses
import logging
from collections import Counter

from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable

from once.databases import unapplied
from once.log import news, tell
from once.routines import registry
from once.status.readiness import PROBE, UNANSWERED, answering, is_ready, undone

__all__ = ["Routines"]


@dataclasses.dataclass
class Routines(HealthCheck):
    """Every start-up routine is done, and every migration of this code applied.

    From then on it asks no database, as :func:`once.views.readiness` does. Because the page of
    django-health-check may be open to strangers, it counts what is not done, by state; the log
    ``once`` names it.
    """

    #: True if the page names routines, too: for a page that only staff, or a monitor, sees.
    names: bool = dataclasses.field(default=False, repr=False)

    def run(self) -> None:
        """Return if everything is done.

        Raises:
            ServiceUnavailable: something is not done, or a database gives no answer.

        """
        routines = registry.load()
        used = unapplied.databases(routines.databases)
        try:
            with answering():
                # Each call closes what it opens, because nothing else would in this thread.
                if is_ready():
                    return
                pending = undone(routines, routines.startup, seconds=PROBE)
                lacking = unapplied.lacking(used, seconds=PROBE)
        except UNANSWERED as error:
            raise ServiceUnavailable("Whether the routines are done cannot be told.") from error
        named = [f"{status.name} {status.state}" for status in pending]
        missing = [f"{using}: {', '.join(names)}" for using, names in lacking.items()]
        level = news(logging.INFO, "not ready", f"{named} {missing}")
        tell(level, "not_ready", routines=", ".join(named), unapplied="; ".join(missing))
        if self.names:
            parts = [*named, *(f"unapplied migrations in {names}" for names in missing)]
        else:
            counts = Counter(str(status.state) for status in pending)
            parts = [f"{count} {state}" for state, count in counts.items()]
            if lacking:
                count = sum(map(len, lacking.values()))
                parts.append(f"{count} unapplied migration{'s' * (count > 1)}")
        raise ServiceUnavailable(f"Not done: {', '.join(parts)}.")
