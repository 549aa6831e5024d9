from django.apps import apps
from django.urls import URLPattern, URLResolver, path

from once.views import readiness

urlpatterns: list[URLPattern | URLResolver] = [path("ready/", readiness)]

if apps.is_installed("django.contrib.admin"):
    from django.contrib import admin

    urlpatterns.append(path("admin/", admin.site.urls))
