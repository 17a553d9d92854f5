"""``RealtimeManager``, which projects may have in their models.

It is Django's manager under another name: writes are captured whatever manager makes them.
"""

from __future__ import annotations

from typing import TypeVar

from django.db import models

M = TypeVar("M", bound=models.Model, covariant=True)


class RealtimeQuerySet(models.QuerySet[M]):
    """A queryset like any other."""


class RealtimeManager(models.Manager[M]):
    """A manager like any other."""

    # read by Django's `get_queryset`
    _queryset_class = RealtimeQuerySet
