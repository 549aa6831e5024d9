"""Models whose rows batches are made of. Their tables exist only in the tests on databases."""

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from django.db import connections, models

__all__ = ["MODELS", "Badge", "Detail", "Item", "Pair", "create_tables", "drop_tables", "stock"]


class Item(models.Model):
    """A row with a key of each kind."""

    number = models.IntegerField(unique=True)
    day = models.DateField(unique=True)
    moment = models.DateTimeField(unique=True)
    amount = models.DecimalField(max_digits=12, decimal_places=4, unique=True)
    ratio = models.FloatField(unique=True)
    period = models.DurationField(unique=True)
    code = models.CharField(max_length=20, unique=True)
    token = models.UUIDField(unique=True)
    twin = models.GeneratedField(
        expression=models.F("token"),  # type: ignore[arg-type]
        output_field=models.UUIDField(),
        db_persist=True,
        unique=True,
    )
    maybe = models.IntegerField(unique=True, null=True)
    group = models.IntegerField(default=0)
    is_done = models.BooleanField(default=False)
    friends = models.ManyToManyField("self")

    objects: ClassVar[models.Manager["Item"]] = models.Manager()

    class Meta:
        app_label = "shop"
        ordering = ["group"]

    def __str__(self) -> str:
        return self.code


class Detail(Item):
    """A row whose primary key is that of its parent's row."""

    objects: ClassVar[models.Manager["Detail"]] = models.Manager()

    class Meta:
        app_label = "shop"


class Badge(models.Model):
    """A row with a primary key that is no number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)

    objects: ClassVar[models.Manager["Badge"]] = models.Manager()

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return str(self.id)


class Pair(models.Model):
    """A row with a primary key of two columns."""

    pk = models.CompositePrimaryKey("left", "right")
    left = models.IntegerField()
    right = models.IntegerField()

    objects: ClassVar[models.Manager["Pair"]] = models.Manager()

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return f"{self.left}-{self.right}"


MODELS: tuple[type[models.Model], ...] = (Item, Detail, Badge, Pair)


def create_tables(using: str) -> None:
    """Create the tables of these models."""
    with connections[using].schema_editor() as editor:
        for model in MODELS:
            editor.create_model(model)


def drop_tables(using: str) -> None:
    """Drop the tables of these models."""
    with connections[using].schema_editor() as editor:
        for model in reversed(MODELS):
            editor.delete_model(model)


def stock(using: str, *numbers: int, **values: Any) -> None:
    """Create items; in the order of their numbers, each of their keys ascends."""
    Item.objects.using(using).bulk_create(
        Item(
            number=number,
            day=date(2024, 1, 1) + timedelta(days=number),
            moment=datetime(2024, 1, 1, tzinfo=UTC) + timedelta(microseconds=number),
            amount=Decimal(number) / 10_000,
            ratio=number / 3,
            period=timedelta(microseconds=number),
            code=f"{number:03d}",
            token=uuid.UUID(int=number),
            maybe=number,
            **values,
        )
        for number in numbers
    )
