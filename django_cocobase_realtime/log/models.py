"""The log's two tables. They live in each database that holds a watched model."""

from __future__ import annotations

import secrets

from django.db import models
from django.db.models import Q
from django.utils import timezone


def new_epoch() -> str:
    """A name for one life of a stream."""
    return secrets.token_hex(4)


class Stream(models.Model):
    """The numbered sequence of one collection's events.

    Events ``floor`` + 1 to ``head`` are in the log. A new ``epoch`` says that the numbers before
    mean nothing any more (a restored backup).
    """

    collection = models.CharField(max_length=128, unique=True)
    epoch = models.CharField(max_length=16, default=new_epoch)
    head = models.BigIntegerField(default=0)
    floor = models.BigIntegerField(default=0)

    class Meta:
        """A table of the app, though its module is not ``models``."""

        app_label = "cocobase_realtime"
        verbose_name = "stream"

    def __str__(self) -> str:
        return f"{self.collection} ({self.floor}, {self.head}]"


class LogEvent(models.Model):
    """One change, written in the row's own transaction; ``seq`` is given after commit.

    ``before``, ``after``, ``changed`` and ``document`` are JSON texts: nothing queries them, and
    a text costs a writer the least.
    """

    id = models.BigAutoField(primary_key=True)
    collection = models.CharField(max_length=128)
    seq = models.BigIntegerField(null=True)
    transaction_id = models.CharField(max_length=32)
    op = models.CharField(max_length=7)
    document_id = models.CharField(max_length=255)
    before = models.TextField(null=True)
    after = models.TextField(null=True)
    changed = models.TextField(null=True)
    document = models.TextField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        """Dense numbers a collection, and a quick look at what waits for one."""

        app_label = "cocobase_realtime"
        verbose_name = "logged event"
        constraints = [
            # of what has a number alone, so that a writer pays for one index less
            models.UniqueConstraint(
                fields=["collection", "seq"],
                name="realtime_seq",
                condition=Q(seq__isnull=False),
            ),
        ]
        indexes = [
            models.Index(
                fields=["collection", "id"],
                name="realtime_unsequenced",
                condition=Q(seq__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.collection} {self.seq}: {self.op} {self.document_id}"
