"""Selection of the rows of a snapshot that a row permission shows.

The time that a snapshot takes, and its flags, must not depend on what hidden rows contain. So the
permission is asked about the rows that its own filter matches, in the order of their keys and up
to a fixed number of them. The client's filter, order and limit are applied only to those that it
shows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ..conf import conf
from ..declarations.collection import Collection
from ..filters.order import Order
from ..log.as_of import images_as_of, keys_as_of
from ..log.cursor import Position
from ..utils.concurrency import run_in_threadpool
from .query import requested_document
from .row_permissions import is_visible
from .subscription import SnapshotQuery, Subscription

# rows that are read and checked at a time
PAGE_SIZE = 200
# seconds; a snapshot of one document takes a multiple of it, so that clients cannot infer from the
# time whether a hidden document exists
STEP = 0.05

# the primary key of a row, and the values to sort by
_ShownRow = tuple[Any, tuple[Any, ...]]


async def select_shown_keys(
    collection: Collection,
    subscription: Subscription,
    query: SnapshotQuery,
    position: Position | None,
) -> tuple[list[Any], bool]:
    """Return the primary keys of the rows for a snapshot, and whether it lacks some rows.

    The rows are checked as they were at a position; without one, as they are now. At most
    ``limits.snapshot_documents`` of them are. If there are more, rows may be lacking, whatever the
    client asked for. Raises `CannotUndo`.
    """
    started_at, limit = time.monotonic(), conf.limits.snapshot_documents
    keys, has_more = await run_in_threadpool(_candidates, collection, subscription, limit, position)
    shown_rows: list[_ShownRow] = []
    for start in range(0, len(keys), PAGE_SIZE):
        part = keys[start : start + PAGE_SIZE]
        shown_rows += await run_in_threadpool(
            _find_shown, collection, subscription, part, query.order, position
        )
    if requested_document(subscription.request.serialized) is not None:
        await asyncio.sleep(STEP - (time.monotonic() - started_at) % STEP)
    _sort(shown_rows, query.order)
    is_cut = has_more or len(shown_rows) > query.limit
    return [key for key, _ in shown_rows[: query.limit]], is_cut


def _candidates(
    collection: Collection, subscription: Subscription, limit: int, position: Position | None
) -> tuple[list[Any], bool]:
    """Return the keys of the first rows that the permission may show, and whether it has more."""
    keys: list[Any] | None = None
    document = requested_document(subscription.request.serialized)
    if document is not None:
        key = collection.codec.key(document)
        keys = [] if key is None else [key]
    filter = subscription.query.candidates
    candidates = keys_as_of(collection, filter, position, limit=limit, keys=keys)
    return candidates.keys, candidates.is_cut


def _find_shown(
    collection: Collection,
    subscription: Subscription,
    keys: Sequence[Any],
    order: Order,
    position: Position | None,
) -> list[_ShownRow]:
    """Return those of the rows that the subscription may see, and that its filter matches."""
    codec = collection.codec
    refs = [collection.schema[name].ref for name in order.names]
    images = images_as_of(collection, keys, position)
    shown_rows: list[_ShownRow] = []
    for key in keys:
        stored = images.get(codec.document_id(key))
        if stored is None:
            continue
        image = codec.decode(stored, collection.database)
        if is_visible(collection, subscription, image) and not collection.is_deleted(image):
            row = collection.row(image)
            shown_rows.append((key, tuple(row.get(ref) for ref in refs)))
    return shown_rows


def _sort(shown_rows: list[_ShownRow], order: Order) -> None:
    """Sort rows that are in the order of their keys."""
    for index, field in reversed(list(enumerate(order.fields))):
        # nulls are lowest; equal values stay in the order that they have
        shown_rows.sort(
            key=lambda row: ((value := row[1][index]) is not None, value),
            reverse=field.descending,
        )
