"""Documents that a serializer of the project makes of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import models

from ..events import FAILED_DOCUMENT
from ..utils.project_code import ProjectCodeFailed, synchronous
from ..utils.transactions import savepoint_at_first_query
from .serialization import to_json_value

# a serializer class of Django REST framework, or a function that returns a mapping
Serializer = Callable[..., Any]


def serialize(serializer: Serializer, instance: models.Model) -> dict[str, Any]:
    """Return the serializer's data for an instance, as JSON values.

    Raises ``TypeError`` if it is not a mapping.
    """
    serialized = synchronous(serializer(instance))
    # a serializer of Django REST framework is an object with the attribute ``data``
    document = to_json_value(getattr(serialized, "data", serialized))
    if not isinstance(document, dict):
        raise TypeError(f"A serializer must return a mapping, not {type(serialized).__name__}.")
    return document


def serialize_safely(
    serializer: Serializer, instance: models.Model, *, collection: str, using: str
) -> dict[str, Any]:
    """Return the serializer's data, or `FAILED_DOCUMENT` if it raises, which is logged.

    A failed query of the serializer does not affect the transaction in which it is called.
    """
    name = getattr(serializer, "__name__", type(serializer).__name__)
    try:
        with savepoint_at_first_query(using):
            return serialize(serializer, instance)
    except Exception as error:  # also of a database: the row's change is delivered in any case
        failure = ProjectCodeFailed(f"collection {collection!r}", f"serializer {name}")
        failure.__cause__ = error
        failure.log()
    return dict(FAILED_DOCUMENT)
