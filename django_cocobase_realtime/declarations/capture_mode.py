"""Capture modes: by the ORM's statements, or by triggers."""

from __future__ import annotations

from typing import Literal

from django.db import connections

from ..conf import conf
from .collection import Collection
from .dependency_table import DependencyTable

# the changes of both are logged
Captured = Collection | DependencyTable

TRIGGER_VENDORS = ("postgresql", "sqlite")
"""Databases that the app has triggers for."""


def title(captured: Captured) -> str:
    """Return how messages name it: "collection 'orders'", or "table of 'teams.Membership'"."""
    kind = "collection" if isinstance(captured, Collection) else "table of"
    return f"{kind} {captured.name!r}"


def captured_by(collection: Captured) -> Literal["signals", "triggers"]:
    """Return how changes of a collection, or of a dependency table, are captured.

    The setting ``CAPTURE`` is used if it names no mode. Its value "triggers" does not
    apply to collections without a log, nor to databases without triggers of this app.
    """
    if collection.capture is not None:
        return "triggers" if collection.capture == "triggers" else "signals"
    if conf.capture != "triggers" or not collection.durable:
        return "signals"
    has_triggers = connections[collection.database].vendor in TRIGGER_VENDORS
    return "triggers" if has_triggers else "signals"
