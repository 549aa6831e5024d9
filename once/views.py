"""Readiness: is everything done that a server needs to have done?"""

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from once import registry
from once.log import logger
from once.readiness import is_done

__all__ = ["readiness"]

_ready = False


@never_cache
def readiness(request: HttpRequest) -> JsonResponse:
    """200 with ``{"done": true}`` once every start-up routine is done, 503 before.

    It asks the databases until then, and no more from then on: a routine that is made pending
    again while this process lives does not make it unready.
    """
    global _ready
    if not _ready:
        try:
            _ready = is_done(registry.load().startup)
        except (Error, ImproperlyConfigured) as error:
            logger.info("event=readiness_unknown reason=%r", str(error))
    return JsonResponse({"done": _ready}, status=200 if _ready else 503)


for _alias in connections:  # ATOMIC_REQUESTS would open every database before this looks
    readiness = transaction.non_atomic_requests(using=_alias)(readiness)
