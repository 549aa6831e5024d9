from django.urls import path

from once.views import readiness

urlpatterns = [path("ready/", readiness)]
