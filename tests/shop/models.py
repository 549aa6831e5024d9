import os

from django.db import models


class Effect(models.Model):
    """What bodies leave behind: the ledger that once does not write."""

    name = models.CharField(max_length=200)
    pid = models.IntegerField(default=os.getpid)

    def __str__(self) -> str:
        return f"{self.name} by {self.pid}"


class Counted(models.Model):
    """A row that batches are made of; every body that sees it adds one."""

    counter = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.pk}: {self.counter}"
