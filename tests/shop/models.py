import os

from django.db import models


class Effect(models.Model):
    """What bodies leave behind: the ledger that once does not write."""

    name = models.CharField(max_length=200)
    pid = models.IntegerField(default=os.getpid)

    def __str__(self) -> str:
        return f"{self.name} by {self.pid}"
