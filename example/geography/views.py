from django.http import Http404, HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404

from . import codes
from .models import Country, Currency, Subdivision


def country(request: HttpRequest, code: str) -> JsonResponse:
    """A country by any of its codes: ``de``, ``DEU``, ``276``."""
    alpha_2 = codes.alpha_2.get(code.upper())
    if alpha_2 is None:
        raise Http404(f"No country has the code {code!r}.")
    found = get_object_or_404(Country, alpha_2=alpha_2)
    currencies = Currency.objects.filter(issuer=found).order_by("code")
    subdivisions = Subdivision.objects.filter(country=found).order_by("code")
    return JsonResponse(
        {
            "alpha_2": found.alpha_2,
            "name": found.name,
            "currencies": list(currencies.values("code", "name")),
            "subdivisions": list(subdivisions.values("code", "name", "kind")),
        }
    )
