from django.urls import include, path

from once.views import readiness

urlpatterns = [
    path("ready/", readiness),
    path("", include("geography.urls")),
]
