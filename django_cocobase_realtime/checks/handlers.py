"""Checks of the functions that ``on_change`` has registered."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

from ..declarations.handler import handler_registry
from ..declarations.registry import UnknownCollection, registry
from .base import error


def check_handlers() -> Iterator[CheckMessage]:
    """Check the collections and filters of handlers. Collections have no mistake themselves."""
    for handler in handler_registry.all():
        try:
            collection = registry.get(handler.collection)
        except UnknownCollection:
            yield error(
                120,
                f"Handler {handler.name!r}: there is no collection {handler.collection!r}.",
                "Name a collection that is declared: on_change('tickets').",
            )
            continue
        if not collection.durable:
            yield error(
                121,
                f"Handler {handler.name!r}: collection {handler.collection!r} has no log, since "
                "its option 'durable' is false.",
                "Handlers read the log. Set durable = True.",
            )
        if handler.filters is None:
            continue
        try:
            collection.parse_trusted_filter(handler.filters)
        except (ImproperlyConfigured, TypeError) as problem:
            yield error(
                122,
                f"Handler {handler.name!r}: {problem}",
                "A filter of a handler names fields that logged rows hold; add others to the "
                "option permission_fields of the collection.",
            )
