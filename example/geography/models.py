"""Countries, subdivisions and currencies, by the codes of ISO 3166 and ISO 4217, and places."""

import os
import socket
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from . import conf


class Country(models.Model):
    # Django makes these; the annotation is for type checkers that do not load these settings.
    objects: ClassVar[models.Manager["Country"]]

    alpha_2 = models.CharField(max_length=2, primary_key=True)
    alpha_3 = models.CharField(max_length=3, unique=True)
    numeric = models.CharField(max_length=3, unique=True)
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Subdivision(models.Model):
    objects: ClassVar[models.Manager["Subdivision"]]

    code = models.CharField(max_length=6, primary_key=True)
    country = models.ForeignKey(Country, models.CASCADE, related_name="subdivisions")
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Currency(models.Model):
    objects: ClassVar[models.Manager["Currency"]]

    code = models.CharField(max_length=3, primary_key=True)
    numeric = models.CharField(max_length=3, unique=True)
    name = models.CharField(max_length=100)
    #: None for gold, for what several countries share, and the like.
    issuer = models.ForeignKey(Country, models.SET_NULL, null=True, related_name="currencies")

    class Meta:
        verbose_name_plural = "currencies"

    def __str__(self) -> str:
        return self.name


class Place(models.Model):
    objects: ClassVar[models.Manager["Place"]]

    subdivision = models.ForeignKey(Subdivision, models.CASCADE, related_name="places")
    name = models.CharField(max_length=100)
    #: What it is found by: see :mod:`geography.names`.
    search_name = models.CharField(max_length=200, default="")
    #: How often a routine changed this row.
    changed = models.PositiveIntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["search_name"], name="geography_place_search")]

    def __str__(self) -> str:
        return self.name


class Visit(models.Model):
    """Somebody told that they were in a country."""

    objects: ClassVar[models.Manager["Visit"]]

    country = models.ForeignKey(Country, models.CASCADE, related_name="visits")
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.country} at {self.at}"


class Effect(models.Model):
    """Having a row means that the body of a routine committed; one of a batch, for each batch.

    Only the bodies write here, and no constraint keeps a second row out: what is counted here is
    what happened.
    """

    objects: ClassVar[models.Manager["Effect"]]

    routine = models.CharField(max_length=200)
    #: Of the code that the body is part of.
    release = models.PositiveIntegerField(default=1)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.routine} by {self.pid} on {self.host}"

    @classmethod
    def leave(cls, routine: str) -> None:
        """Say in the transaction in hand that this process ran a body."""
        cls.objects.create(
            routine=routine, release=conf.RELEASE, host=socket.gethostname(), pid=os.getpid()
        )
