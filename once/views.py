"""Readiness: is everything done that a server needs to have done?"""

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from once.status.readiness import UNANSWERED, answering, is_ready

__all__ = ["readiness"]


@login_not_required  # a probe would take the redirection to a login page for a yes
@require_safe
@never_cache
def readiness(request: HttpRequest) -> JsonResponse:
    """200 with ``{"done": true}`` once every start-up routine is done, 503 before.

    It asks the databases until then, and no more from then on.
    """
    try:
        with answering():
            done = is_ready()
    except UNANSWERED:
        done = False
    return JsonResponse({"done": done}, status=200 if done else 503)


for _alias in connections:  # ATOMIC_REQUESTS would open every database before this looks
    readiness = transaction.non_atomic_requests(using=_alias)(readiness)
