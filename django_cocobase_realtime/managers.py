"""``RealtimeManager``, which projects may have in their models.

It is Django's manager: writes are captured whatever manager makes them.
"""

from __future__ import annotations

from typing import TypeVar

from django.db import models

M = TypeVar("M", bound=models.Model)


class RealtimeQuerySet(models.QuerySet[M]):
    """A queryset like any other."""


class RealtimeManager(models.Manager.from_queryset(RealtimeQuerySet)[M]):  # type: ignore[misc]
    """A manager like any other."""
