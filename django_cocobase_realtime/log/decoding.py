"""Decoding of rows of the log to changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from ..declarations.dependency_table import is_hidden, label_of
from ..declarations.registry import UnknownCollection, registry
from ..declarations.related_values import shown_changes
from ..declarations.serialization import changed_fields
from ..events import Change, Image
from ..utils.json_text import decode_json
from ..utils.project_code import is_unavailable
from . import column_images

logger = logging.getLogger(__name__)

# columns that are read to decode a `Change`
FIELDS = (
    "id",
    "seq",
    "transaction_id",
    "collection",
    "op",
    "document_id",
    "before",
    "after",
    "changed",
    "document",
    "related",
    "created_at",
    "related_seq",
)
# values of the columns in FIELDS
Row = tuple[Any, ...]


def changes_from_rows(
    using: str, rows: Sequence[Row], *, epoch: str, seqs: Iterable[int]
) -> list[Change]:
    """Return the changes in rows of one stream, with the columns ``FIELDS``.

    They get the epoch, and the numbers ``seqs``. Images that triggers wrote are converted.
    """
    in_hidden = bool(rows) and is_hidden(rows[0][3])
    # in a hidden stream, images of several tables, by what begins the document ids
    labels = [label_of(row[5])[0] if in_hidden else "" for row in rows]
    texts: dict[str, list[str]] = {}
    for row, label in zip(rows, labels, strict=True):
        for text in row[6:8]:
            if column_images.is_by_column(text):
                texts.setdefault(label, []).append(text)
    converted = {
        label: _convert(using, rows[0][3], label, images) for label, images in texts.items()
    }
    changes = [
        _change_safely(row, epoch=epoch, seq=seq, converted=converted.get(label, {}))
        for row, label, seq in zip(rows, labels, seqs, strict=True)
    ]
    return _with_related_names(changes)


def _with_related_names(changes: list[Change]) -> list[Change]:
    """Name the related fields that changes of the rows' own columns concern."""
    if all(change.related is None for change in changes):
        return changes
    try:
        collection = registry.get(changes[0].collection)
    except UnknownCollection:
        return changes
    return [
        change
        if change.related is None or change.changed is None
        else replace(change, changed=shown_changes(collection, change))
        for change in changes
    ]


def _convert(
    using: str, stream: str, label: str, texts: list[str]
) -> dict[str, tuple[str | None, Image]]:
    try:
        captured = registry.logged(stream, label)
    except UnknownCollection:
        return {}  # no client can be subscribed
    try:
        return column_images.convert(captured, using, texts)
    except Exception as error:
        if is_unavailable(error):
            raise
        if len(texts) == 1:
            # it counts as an image without any field
            logger.exception("An image of %r in the log cannot be read.", captured.name)
            return {}
    converted: dict[str, tuple[str | None, Image]] = {}
    for text in texts:
        converted |= _convert(using, stream, label, [text])
    return converted


def _change_safely(
    row: Row, *, epoch: str, seq: int, converted: dict[str, tuple[str | None, Image]]
) -> Change:
    """Return the change in a row; without any values if they cannot be read.

    An exception would keep all clients of the collection from everything that follows.
    """
    try:
        return _change(row, epoch=epoch, seq=seq, converted=converted)
    except Exception:
        logger.exception("Event %s of the log cannot be read.", row[0])
    emptied = [None if text is None else "{}" for text in row[6:8]]
    row = (*row[:6], *emptied, None, None, None, *row[11:])
    return _change(row, epoch=epoch, seq=seq, converted={})


def _change(
    row: Row, *, epoch: str, seq: int, converted: dict[str, tuple[str | None, Image]]
) -> Change:
    id, _, transaction, collection, op, document_id, before, after, changed, *rest = row
    document, related, at, related_seq = rest
    images: list[Image | None] = []
    for text in (before, after):
        if column_images.is_by_column(text):
            key, image = converted.get(text, (None, {}))
            document_id = key or document_id
            images.append(image)
        else:
            images.append(None if text is None else _decode_object(text, id))
    old, new = images
    names = None if changed is None else _decode_names(changed, id)
    if names is None and op == "updated" and column_images.is_by_column(before) and old and new:
        names = changed_fields(old, new)
    return Change(
        id=str(id),
        collection=collection,
        op=op,
        document_id=document_id,
        transaction=transaction,
        at=_iso_format(at),
        before=old,
        after=new,
        changed=names,
        document=None if document is None else _decode_object(document, id),
        epoch=epoch,
        seq=seq,
        related_seq=related_seq,
        related=None if related is None else _decode_object(related, id),
    )


def _decode_object(text: str, id: Any) -> dict[str, Any]:
    """Return a JSON object; if it is none, an empty one.

    An empty image lacks all fields, so that the event is judged by the row as it is now.
    """
    value = _decode(text, id)
    return value if isinstance(value, dict) else {}


def _decode_names(text: str, id: Any) -> tuple[str, ...] | None:
    """Return a list of names; if it is none, None, which stands for unknown names."""
    value = _decode(text, id)
    is_valid = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_valid else None


def _decode(text: str, id: Any) -> Any:
    """Return a JSON value, or None if something else has damaged the log.

    An exception would keep all clients of the collection from everything that follows.
    """
    try:
        return decode_json(text)
    except (ValueError, RecursionError) as error:
        logger.error("Event %s of the log is damaged: %s", id, error)
        return None


def _iso_format(at: datetime) -> str:
    if at.tzinfo is not UTC:
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return at.isoformat()
