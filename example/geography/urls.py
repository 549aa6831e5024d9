from django.urls import path

from . import views

urlpatterns = [
    path("countries/<str:code>/", views.country),
]
