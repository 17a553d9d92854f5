"""How the changes of a collection are captured: by the ORM's statements, or by triggers."""

from __future__ import annotations

from typing import Literal

from django.db import connections

from ..conf import conf
from .collection import Collection

TRIGGER_VENDORS = ("postgresql", "sqlite")
"""Databases that the app has triggers for."""


def captured_by(collection: Collection) -> Literal["signals", "triggers"]:
    """Return how changes of the collection are captured.

    The setting ``CAPTURE`` is used if the collection names no mode. Its value "triggers" does not
    apply to collections without a log, nor to databases without triggers of this app.
    """
    if collection.capture is not None:
        return "triggers" if collection.capture == "triggers" else "signals"
    if conf.capture != "triggers" or not collection.durable:
        return "signals"
    has_triggers = connections[collection.database].vendor in TRIGGER_VENDORS
    return "triggers" if has_triggers else "signals"
