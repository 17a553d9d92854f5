"""Values that are made of events when they are numbered, and stored with them.

These are the documents of a collection with a serializer, and the values of related fields. They
are made once, in the transaction that numbers the events, so that all processes send the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db import connections
from msgspec.structs import replace

from ..declarations.collection import Collection
from ..declarations.registry import UnknownCollection, registry
from ..declarations.related_values import with_related
from ..declarations.row_documents import make_documents
from ..events import FAILED_DOCUMENT, Change
from ..models import LogEvent
from ..utils.project_code import ProjectCodeFailed
from .append import json_text


def collection_with_values(name: str) -> Collection | None:
    """Return the collection if values of its events are made when they are numbered."""
    try:
        collection = registry.get(name)
    except UnknownCollection:
        return None
    has_values = collection.serializer is not None or collection.related_fields
    return collection if has_values else None


class MadeValues(NamedTuple):
    """The values that were made of events."""

    # the events with them
    changes: list[Change]
    # the column of the log that contains them, and the text for each event
    column: str
    texts: list[str | None]


def make_values(using: str, collection: Collection, changes: list[Change]) -> MadeValues:
    """Make the values of numbered events."""
    if collection.serializer is None:
        changes = with_related(collection, changes, using)
        return MadeValues(changes, "related", [json_text(change.related) for change in changes])
    documents = [
        _encode_document(collection, document)
        for document in make_documents(collection, changes, using)
    ]
    changes = [
        replace(change, document=document)
        for change, (document, _) in zip(changes, documents, strict=True)
    ]
    return MadeValues(changes, "document", [text for _, text in documents])


def store_values(using: str, collection: Collection, changes: list[Change]) -> list[Change]:
    """Make the values of numbered events, store them, and return the events with them."""
    values = make_values(using, collection, changes)
    seqs = [change.seq for change in changes]
    _update(using, collection.stream, values.column, seqs, values.texts)
    return values.changes


def _update(
    using: str,
    stream: str,
    column: str,
    seqs: Sequence[int | None],
    texts: Sequence[str | None],
) -> None:
    """Set a column of the events with these numbers."""
    connection = connections[using]
    table = connection.ops.quote_name(LogEvent._meta.db_table)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # one round trip
            cursor.execute(
                f"UPDATE {table} SET {column} = given.value "  # noqa: S608 - our own table
                "FROM unnest(%s::bigint[], %s::text[]) AS given(seq, value) "
                f"WHERE {table}.collection = %s AND {table}.seq = given.seq",
                [list(seqs), list(texts), stream],
            )
        else:
            cursor.executemany(
                f"UPDATE {table} SET {column} = %s WHERE collection = %s AND seq = %s",  # noqa: S608
                [(text, stream, seq) for seq, text in zip(seqs, texts, strict=True)],
            )


def _encode_document(
    collection: Collection, document: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, str | None]:
    """Return a document, also as text; `FAILED_DOCUMENT` if it cannot be encoded.

    An event for which this fails must not keep clients from those that follow.
    """
    try:
        return document, json_text(document)
    except Exception as error:
        failure = ProjectCodeFailed(f"collection {collection.name!r}", "serializer")
        failure.__cause__ = error
        failure.log()
        return dict(FAILED_DOCUMENT), json_text(dict(FAILED_DOCUMENT))
