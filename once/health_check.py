"""A check for django-health-check, version 4: are the start-up routines done?"""

import dataclasses
import logging
from collections import Counter
from contextlib import ExitStack

from django.core.exceptions import ImproperlyConfigured
from django.db import Error
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable

from once import registry
from once.databases import database
from once.log import tell
from once.readiness import PROBE, is_ready, undone
from once.text import one_line

__all__ = ["Routines"]


@dataclasses.dataclass
class Routines(HealthCheck):
    """Every start-up routine is done.

    Once they are it asks no database any more, as :func:`once.views.readiness` does. The page of
    django-health-check may be open to strangers: it says how many are not done, and in which
    state, and the log ``once`` says which.
    """

    #: Whether the page names them, too: where only staff, or a monitor, sees it.
    names: bool = dataclasses.field(default=False, repr=False)

    def run(self) -> None:
        """Return where everything is done.

        Raises:
            ServiceUnavailable: something is not, or that cannot be told.

        """
        startup = registry.load().startup
        try:
            # This is a thread whose connections nobody else would close.
            with ExitStack() as sessions:
                for using in sorted({routine.using for routine in startup}):
                    sessions.enter_context(database(using).reading(PROBE))
                if is_ready():
                    return
                pending = undone(registry.load(), startup)
        except (Error, ImproperlyConfigured, OSError) as error:
            tell(logging.INFO, "readiness_unknown", reason=one_line(error))
            raise ServiceUnavailable("Whether the routines are done cannot be told.") from error
        named = ", ".join(f"{one.name} {one.state}" for one in pending)
        tell(logging.INFO, "not_ready", routines=named)
        if not self.names:
            counts = Counter(str(one.state) for one in pending)
            named = ", ".join(f"{count} {state}" for state, count in counts.items())
        raise ServiceUnavailable(f"Start-up routines are not done: {named}.")
