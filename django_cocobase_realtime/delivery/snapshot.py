"""Snapshots: the documents that match a subscription now, read and sent page by page."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Sequence
from itertools import islice
from sys import getsizeof
from typing import Any, NamedTuple

from django.db.models import QuerySet
from msgspec import Raw

from ..conf import conf
from ..declarations.collection import Collection
from ..filters.orm import ordering, to_q
from ..transport.waiting_frames import size_of
from ..utils.concurrency import run_in_threadpool
from ..wire import frames
from .checked_rows import select_shown_keys
from .row_sizes import FEW_ROWS, MAX_ROW_BYTES, MAX_ROWS, row_bytes, small_rows
from .subscription import SnapshotQuery, Subscription
from .visible_documents import Document, read_documents

PAGE_SIZE = 200  # documents of a page, and rows that are read in one call unless they are small
GROWTH = 8  # factor by which more rows are read after small ones


async def send_snapshot(
    subscription: Subscription, collection: Collection, query: SnapshotQuery, cursor: str | None
) -> None:
    """Send the documents that match now, in pages. ``cursor`` is the position before them.

    The caller must have the connection's turn for a snapshot.
    """
    writer = subscription.connection.writer
    if subscription.query.check is None:
        selected, is_cut = await run_in_threadpool(
            select_keys, collection, subscription, query.order, query.limit
        )
    else:
        keys, is_cut = await select_shown_keys(collection, subscription, query)
        selected = SelectedKeys(keys)
        del keys
    reader = DocumentReader(collection, subscription, selected)
    del selected
    remaining, max_bytes = query.limit, conf.limits.event_bytes
    ready: deque[bytes] = deque()
    more = True
    with writer.holding() as hold:
        while more:
            async with writer.page_turn:
                # not read before the client has read the last page
                await writer.wait_drained()
                size = min(PAGE_SIZE, remaining)
                # a page is sent when it is full and a further document is known, so that neither
                # the number of pages nor `more` reveals rows that a permission has hidden in the
                # meantime
                while reader.has_more and not _is_full(ready, size, max_bytes):
                    ready += await run_in_threadpool(reader.read, max_bytes)
                    hold(reader.size + size_of(ready))
                page = _take(ready, size, max_bytes)
                remaining -= len(page)
                more = bool(ready) and remaining > 0
                documents = list(map(Raw, page))
                frame = frames.snapshot(subscription.name, documents, cursor, more=more)
                if not more and (ready or is_cut):
                    frame["truncated"] = True
                await writer.wait_drained()
                writer.push(frames.encode(frame))
                hold(reader.size + size_of(ready))


def _is_full(ready: Sequence[bytes], size: int, max_bytes: int) -> bool:
    """Return whether documents are a full page, and one more."""
    return len(ready) > size or sum(map(len, ready)) > max_bytes


def _take(ready: deque[bytes], size: int, max_bytes: int) -> list[bytes]:
    """Remove the documents of a page from those that are ready, and return them."""
    page: list[bytes] = []
    length = 0
    while ready and len(page) < size:
        length += len(ready[0])
        if page and length > max_bytes:
            break
        page.append(ready.popleft())
    return page


# in worker threads


def read_pages(
    collection: Collection, subscription: Subscription, query: SnapshotQuery, max_bytes: int
) -> tuple[list[list[bytes]], bool] | None:
    """Return the documents that match now, in pages, and whether there are more than the limit.

    Returns None if they have more than ``max_bytes``. Not for rows that are checked one by one.
    """
    selected, is_cut = select_keys(collection, subscription, query.order, query.limit)
    reader = DocumentReader(collection, subscription, selected)
    documents: deque[bytes] = deque()
    size = 0
    while reader.has_more:
        part = reader.read(max_bytes - size)
        documents += part
        size += sum(map(len, part))
        if size > max_bytes:
            return None
    pages: list[list[bytes]] = []
    while documents:
        pages.append(_take(documents, PAGE_SIZE, conf.limits.event_bytes))
    return pages, is_cut


class SelectedKeys(NamedTuple):
    """The primary keys of the rows of a snapshot, in its order."""

    keys: Sequence[Any]
    # bytes of each row, roughly; empty if they were not measured
    sizes: Sequence[int] = ()


class DocumentReader:
    """Reads the documents with given primary keys, in their order, as JSON.

    Its methods use the ORM, so they must not be called in an event loop.
    """

    def __init__(
        self, collection: Collection, subscription: Subscription, selected: SelectedKeys
    ) -> None:
        self._collection = collection
        self._subscription = subscription
        # the next keys, and the bytes of their rows if they are known
        self._keys: deque[Any] = deque(selected.keys)
        self._sizes: deque[int] = deque(selected.sizes)
        # the other keys and sizes in groups, as bytes, which take much less memory than objects
        self._packed: deque[bytes] = deque()
        # whether the rows were measured
        self._is_measured = bool(selected.sizes)
        # bytes of the documents per byte of their rows, in the last part that was read
        self._ratio = 1.0
        # bytes of the largest document of the last part that was read
        self._expected = 1
        # rows to read at a time, if they were not measured
        few_rows = small_rows(collection.concrete_model)
        self._next_count = max(FEW_ROWS, few_rows)
        # rows to read in one call; few if each may cost the serializer queries of its own
        self._max_rows = PAGE_SIZE
        if collection.serializer is None or collection.loaded_queryset is not None:
            self._max_rows = MAX_ROWS if self._is_measured else max(PAGE_SIZE, few_rows)

    @property
    def has_more(self) -> bool:
        """Whether there are keys that were not read."""
        return bool(self._keys or self._packed)

    @property
    def size(self) -> int:
        """Bytes of the keys that were not read."""
        unread = size_of(self._packed) + sum(map(getsizeof, self._keys))
        return unread + sum(map(getsizeof, self._sizes))

    def read(self, max_bytes: int) -> list[bytes]:
        """Return the next documents, up to the one with which they exceed ``max_bytes``.

        At most `PAGE_SIZE` rows are read, or `MAX_ROWS` if they are known to be small. Rows that
        were deleted, or do not match any more, are left out.
        """
        self._unpack()
        documents: list[bytes] = []
        length = 0
        unread = min(len(self._keys), self._max_rows)
        while unread and length <= max_bytes:
            count = self._count_rows(max_bytes - length, unread)
            keys = [self._keys.popleft() for _ in range(count)]
            sizes = [self._sizes.popleft() for _ in range(count)] if self._is_measured else []
            unread -= count
            number, largest, start = 0, 1, length
            loaded = read_documents(self._collection, self._subscription, keys)
            for number, document in enumerate(loaded, start=1):
                if document is None:
                    continue
                text = _encode(document)
                documents.append(text)
                length += len(text)
                largest = max(largest, len(text))
                if length > max_bytes:
                    self._keys.extendleft(reversed(keys[number:]))
                    self._sizes.extendleft(reversed(sizes[number:]))
                    break
            self._expected, self._next_count = largest, count * GROWTH
            self._ratio = max(length - start, 1) / max(sum(sizes[:number]), 1)
        return documents

    def _count_rows(self, max_bytes: int, unread: int) -> int:
        """Return how many of the next rows to read for documents of ``max_bytes``."""
        if not self._is_measured:
            return max(1, min(self._next_count, max_bytes // self._expected, unread))
        max_bytes = min(int(max_bytes / self._ratio), MAX_ROW_BYTES)
        size = 0
        for count, row_size in enumerate(islice(self._sizes, unread), start=1):
            size += row_size
            if size > max_bytes:
                return count
        return unread

    def _unpack(self) -> None:
        """Have the next keys as objects, and the others as bytes."""
        size = self._max_rows
        if len(self._keys) > size:
            keys, sizes = list(self._keys), list(self._sizes)
            self._keys, self._sizes = deque(keys[:size]), deque(sizes[:size])
            self._packed = deque(
                pickle.dumps((keys[start : start + size], sizes[start : start + size]))
                for start in range(size, len(keys), size)
            )
        elif not self._keys and self._packed:
            keys, sizes = pickle.loads(self._packed.popleft())  # noqa: S301
            self._keys.extend(keys)
            self._sizes.extend(sizes)


def select_keys(
    collection: Collection, subscription: Subscription, order: str | None, limit: int
) -> tuple[SelectedKeys, bool]:
    """Return the primary keys of the first ``limit`` matching rows, and whether there are more.

    On every database, nulls sort lowest, texts sort by code points, and equal values by key.
    """
    model, using = collection.concrete_model, collection.database
    filter = subscription.query.filter
    if collection.deleted_filter is not None:
        filter &= ~collection.deleted_filter
    # managers of the project may replace names of fields, or leave rows out
    rows: QuerySet[Any] = QuerySet(model, using=using).filter(to_q(filter, model, using))
    by = [] if order is None else [ordering(model, order, using)]
    rows = rows.order_by(*by, "pk")
    size = row_bytes(collection, limit, is_sorted=order is not None)
    if size is None:
        keys = list(rows.values_list("pk", flat=True)[: limit + 1])
        return SelectedKeys(keys[:limit]), len(keys) > limit
    selected = list(rows.values_list("pk", size)[: limit + 1])
    keys = [key for key, _ in selected[:limit]]
    return SelectedKeys(keys, [size for _, size in selected[:limit]]), len(selected) > limit


def _encode(document: Document) -> bytes:
    """Return a document as JSON; without its data if it is larger than an event may be."""
    text = frames.encode_part(document)
    if len(text) <= conf.limits.event_bytes:
        return text
    return frames.encode_part({"id": document["id"], "truncated": True})
