"""The table of the positions of handlers, which exists in every database with a change log."""

from __future__ import annotations

from django.db import models


class Handler(models.Model):
    """The position of a function that ``on_change`` has registered.

    It was called with all changes up to the number ``seq``. The process ``owner`` calls it until
    its lease ends: ``lease_until``, in seconds since 1970 by the clock of the database. With
    ``stopped_at`` it is not called any more, because it has failed too often.
    """

    name = models.CharField(max_length=200, unique=True)
    collection = models.CharField(max_length=128)
    epoch = models.CharField(max_length=16)
    seq = models.BigIntegerField()
    updated_at = models.DateTimeField(auto_now=True)
    # attempts to handle the next change that have failed, and the last exception
    failures = models.IntegerField(default=0)
    last_error = models.TextField(default="")
    stopped_at = models.DateTimeField(null=True)
    owner = models.CharField(max_length=32, default="")
    lease_until = models.FloatField(default=0.0)

    def __str__(self) -> str:
        return f"{self.name} at {self.collection} {self.seq}"
