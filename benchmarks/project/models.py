"""What contenders write: effects, and the record of those that bring no record of their own."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

__all__ = ["Done", "Effect", "Item"]


class Done(models.Model):
    """A row means that the routine is done: the usual do-it-yourself record."""

    name = models.CharField(max_length=200, unique=True)

    objects: ClassVar[models.Manager["Done"]]

    def __str__(self) -> str:
        return self.name


class Effect(models.Model):
    """What a body leaves behind."""

    name = models.CharField(max_length=200)
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class Item(models.Model):
    """A row that batches are made of."""

    counter = models.PositiveIntegerField(default=0)
    text = models.CharField(max_length=200, default="")

    objects: ClassVar[models.Manager["Item"]]

    def __str__(self) -> str:
        return f"{self.pk}: {self.counter}"
