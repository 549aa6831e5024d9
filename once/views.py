"""Readiness: is everything done that a server needs to have done?"""

from collections.abc import Callable
from typing import Any, TypeVar

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from once.status.readiness import UNANSWERED, answering, is_ready

__all__ = ["readiness"]

V = TypeVar("V", bound=Callable[..., Any])


def outside_transactions(view: V) -> V:
    """Exempt a view from ATOMIC_REQUESTS, which would open every database before it looks.

    So a database that is out of reach is no error of the whole page, and a run that a view makes
    has transactions of its own.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


@outside_transactions
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
