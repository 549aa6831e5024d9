from django.http import Http404, HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from . import codes
from .models import Country, Currency, Place, Subdivision, Visit
from .names import searchable


@require_GET
def country(request: HttpRequest, code: str) -> JsonResponse:
    """A country by any of its codes: ``de``, ``DEU``, ``276``."""
    found = _country(code)
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


@csrf_exempt  # programs come, without a cookie that could be misused
@require_POST
def visit(request: HttpRequest, code: str) -> JsonResponse:
    """Tell that one was there."""
    found = _country(code)
    Visit.objects.create(country=found)
    return JsonResponse({"country": found.alpha_2}, status=201)


@require_GET
def places(request: HttpRequest) -> JsonResponse:
    """Places of a name, however it is spelled: ``?name=zurich``."""
    name = searchable(request.GET.get("name", ""))
    found = Place.objects.filter(search_name=name).order_by("name", "pk")
    return JsonResponse({"places": list(found.values("name", "subdivision"))})


def _country(code: str) -> Country:
    alpha_2 = codes.alpha_2.get(code.upper())
    if alpha_2 is None:
        raise Http404(f"No country has the code {code!r}.")
    return get_object_or_404(Country, alpha_2=alpha_2)
