from django.urls import path

from . import views

urlpatterns = [
    path("countries/<str:code>/", views.country),
    path("countries/<str:code>/visits/", views.visit),
    path("places/", views.places),
]
