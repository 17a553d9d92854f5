"""Documents that a serializer of the project makes of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import models

from ..events import FAILED_DOCUMENT
from ..utils.project_code import ProjectCodeFailed, synchronous
from ..utils.transactions import savepoint_at_first_query
from .serialization import to_json_value

# a serializer class of Django REST framework, or a callable that returns a mapping
Serializer = Callable[..., Any]
# the data of a document, as JSON values
Data = dict[str, Any]


def serialized_names(serializer: Serializer | None) -> Sequence[str]:
    """Return the names of a DRF serializer's fields; nothing for another serializer."""
    if isinstance(serializer, type) and hasattr(serializer, "get_fields"):
        return tuple(serializer().fields)
    return ()


def serialize(serializer: Serializer, instance: models.Model) -> Data:
    """Return the serializer's data for an instance, as JSON values.

    Raises ``TypeError`` if it is not a mapping.
    """
    serialized = synchronous(serializer(instance))
    # a serializer of Django REST framework is an object with the attribute ``data``
    document = to_json_value(getattr(serialized, "data", serialized))
    if not isinstance(document, dict):
        raise TypeError(f"A serializer must return a mapping, not {type(serialized).__name__}.")
    return document


def serialize_rows(
    serializer: Serializer, instances: Sequence[models.Model], *, collection: str, using: str
) -> list[Data]:
    """Return the serializer's data for each instance; `FAILED_DOCUMENT` for those it raises for.

    The instances are serialized in one call if the serializer can do that. If it raises, they are
    serialized one by one, so that those that it can serialize are not lost. Failures are logged.
    A failed query of the serializer does not affect the transaction in which it is called.
    """
    failure: ProjectCodeFailed | None = None
    if len(instances) > 1:
        try:
            with savepoint_at_first_query(using):
                documents = _serialize_together(serializer, instances)
            if documents is not None:
                return documents
        except Exception as error:
            failure = _failure(serializer, collection, error)
    documents = [
        _serialize_safely(serializer, instance, collection=collection, using=using)
        for instance in instances
    ]
    if failure is not None and not any(document == FAILED_DOCUMENT for document in documents):
        failure.log()  # otherwise the failure of a single row has been logged, which says more
    return documents


def _serialize_safely(
    serializer: Serializer, instance: models.Model, *, collection: str, using: str
) -> Data:
    try:
        with savepoint_at_first_query(using):
            return serialize(serializer, instance)
    except Exception as error:  # also of a database: the row's change is delivered in any case
        _failure(serializer, collection, error).log()
    return dict(FAILED_DOCUMENT)


def _failure(serializer: Serializer, collection: str, error: Exception) -> ProjectCodeFailed:
    name = getattr(serializer, "__name__", type(serializer).__name__)
    failure = ProjectCodeFailed(f"collection {collection!r}", f"serializer {name}")
    failure.__cause__ = error
    return failure


def _serialize_together(
    serializer: Serializer, instances: Sequence[models.Model]
) -> list[Data] | None:
    """Return the data of several instances, which one call made; None if there is no such call.

    Raises ``TypeError`` if the result is not a list with one mapping per instance.
    """
    if hasattr(serializer, "serialize_many"):
        serialized: Any = synchronous(serializer.serialize_many(list(instances)))
    else:
        serialized = _framework_data(serializer, instances)
        if serialized is None:
            return None
    documents = to_json_value(list(serialized))
    if len(documents) != len(instances) or not all(isinstance(d, dict) for d in documents):
        raise TypeError("serialize_many must return one mapping per instance, in their order.")
    result: list[Data] = documents
    return result


def _framework_data(serializer: Any, instances: Sequence[models.Model]) -> Any:
    """Return the data of a serializer class of Django REST framework with ``many=True``.

    Returns None for another callable, and if the class makes lists in its own way, since such a
    list may have another order.
    """
    if not (isinstance(serializer, type) and hasattr(serializer, "many_init")):
        return None
    from rest_framework.serializers import ListSerializer

    many = serializer(list(instances), many=True)
    is_plain = isinstance(many, ListSerializer) and all(
        getattr(type(many), name) is getattr(ListSerializer, name)
        for name in ("data", "to_representation")
    )
    return many.data if is_plain else None
