from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from once.views import readiness


def alive(request: HttpRequest) -> HttpResponse:
    """Whether this process answers. It asks nothing else: who is not ready is not to be killed."""
    return HttpResponse(status=204)


urlpatterns = [
    path("alive/", alive),
    path("ready/", readiness),
    path("admin/", admin.site.urls),
    path("", include("geography.urls")),
]
