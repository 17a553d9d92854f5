"""Snapshots: the documents that match a subscription, read and sent page by page.

All pages have the documents as they were at the snapshot's position in the stream, so that exactly
the events after it are missing. If so much has changed since that it cannot be undone, the position
is moved. If it was sent already, or if the collection does not keep what rows were, the documents
are read as they are now. Events that follow may then be contained already.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from sys import getsizeof
from typing import Any, NamedTuple, TypeVar

from msgspec import Raw

from ..conf import conf
from ..declarations.collection import Collection
from ..filters.order import Order
from ..log.as_of import keys_as_of, matches
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.touched import CannotUndo, TooManyTouched, read_touched
from ..transport.waiting_frames import WaitingFrame, size_of, unpack
from ..utils.concurrency import run_in_threadpool
from ..wire import frames
from .checked_rows import select_shown_keys
from .row_sizes import FEW_ROWS, MAX_ROW_BYTES, MAX_ROWS, row_bytes, small_rows
from .subscription import SnapshotQuery, Subscription
from .visible_documents import Document, read_documents

PAGE_SIZE = 200  # documents of a page, and rows that are read in one call unless they are small
GROWTH = 8  # factor by which more rows are read after small ones
MAX_ATTEMPTS = 3  # to read rows as of a position, each of a later one

T = TypeVar("T")
P = TypeVar("P", bound=Position | None)


def cursor_at(stream: str, position: Position | None) -> str | None:
    """Return the cursor of a position in a stream; None without a log."""
    return None if position is None else encode_cursor(stream, position.epoch, position.seq)


async def read_as_of(
    read: Callable[[Position | None], Awaitable[T]],
    position: P,
    advance: Callable[[], Awaitable[P]] | None,
) -> tuple[T, P]:
    """Return what ``read`` returns for a position, and the position from which events must follow.

    ``advance`` returns a later position, which is used if too much has changed since this one. At
    last, ``read`` is called with None, for the rows as they are now.
    """
    for _ in range(MAX_ATTEMPTS):
        try:
            return await read(position), position
        except TooManyTouched:
            if advance is None:
                break
            position = await advance()
        except CannotUndo:
            break
    return await read(None), position


async def select_documents(
    subscription: Subscription,
    collection: Collection,
    query: SnapshotQuery,
    position: Position | None,
) -> tuple[DocumentReader, bool]:
    """Return what reads the documents of a snapshot, and whether it lacks some that match.

    Raises `CannotUndo`.
    """
    if subscription.query.check is None:
        selected, is_cut = await run_in_threadpool(
            select_keys, collection, subscription, query.order, query.limit, position
        )
    else:
        keys, is_cut = await select_shown_keys(collection, subscription, query, position)
        selected = SelectedKeys(keys)
    return DocumentReader(collection, subscription, selected, position), is_cut


async def send_snapshot(
    subscription: Subscription,
    reader: DocumentReader,
    query: SnapshotQuery,
    cursor: str | None,
    *,
    is_cut: bool,
) -> None:
    """Send documents in pages. ``cursor`` is the position from which events follow.

    The caller must have the connection's turn for a snapshot.
    """
    writer = subscription.connection.writer
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


async def send_frames(subscription: Subscription, waiting: deque[WaitingFrame]) -> None:
    """Send the frames of a shared snapshot, each when the client has read the one before it.

    They are removed, so that those that were sent take no memory. The caller must have the
    connection's turn for a snapshot.
    """
    writer = subscription.connection.writer
    with writer.holding(size_of(waiting)) as hold:
        while waiting:
            async with writer.page_turn:
                await writer.wait_drained()
                writer.push(unpack(waiting.popleft()))
                hold(size_of(waiting))


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


# documents in pages, and whether there are more than the limit; None if they are too large
Pages = tuple[list[list[bytes]], bool] | None


def read_pages(
    collection: Collection,
    subscription: Subscription,
    query: SnapshotQuery,
    max_bytes: int,
    position: Position | None = None,
) -> Pages:
    """Return the documents that matched at a position, or None if they exceed ``max_bytes``.

    Without a position, or if the collection does not keep what rows were, they are those that match
    now. Not for rows that are checked one by one. Raises `TooManyTouched`.
    """
    selected, is_cut = select_keys(collection, subscription, query.order, query.limit)
    pages = _read_pages(DocumentReader(collection, subscription, selected), max_bytes, is_cut)
    if position is None or pages is None:
        return pages
    try:
        # mostly, nothing has changed, so that one look at the log is enough
        touched = read_touched(collection, position)
        if touched:
            ids = set(map(collection.codec.document_id, selected.keys))
            filter = subscription.query.filter
            if not ids.isdisjoint(touched.images) or any(
                matches(collection, filter, image) for _, image in touched.existing()
            ):
                return _read_former_pages(collection, subscription, query, max_bytes, position)
    except TooManyTouched:
        raise
    except CannotUndo:
        pass
    return pages


def _read_former_pages(
    collection: Collection,
    subscription: Subscription,
    query: SnapshotQuery,
    max_bytes: int,
    position: Position,
) -> Pages:
    """Return the documents that matched at a position. Raises `CannotUndo`."""
    selected, is_cut = select_keys(collection, subscription, query.order, query.limit, position)
    reader = DocumentReader(collection, subscription, selected, position)
    pages = _read_pages(reader, max_bytes, is_cut)
    if not reader.is_exact:
        raise TooManyTouched("The documents changed while they were read.")
    return pages


def _read_pages(reader: DocumentReader, max_bytes: int, is_cut: bool) -> Pages:
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
        self,
        collection: Collection,
        subscription: Subscription,
        selected: SelectedKeys,
        position: Position | None = None,
    ) -> None:
        self._collection = collection
        self._subscription = subscription
        # the position at which the documents are read; None for now
        self._position = position
        # whether all that were read were read at it
        self.is_exact = True
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
            for number, document in enumerate(self._load(keys), start=1):
                if document is None:
                    continue
                text = encode_document(document)
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

    def _load(self, keys: Sequence[Any]) -> list[Document | None]:
        if self._position is not None:
            try:
                return read_documents(self._collection, self._subscription, keys, self._position)
            except CannotUndo:
                self._position, self.is_exact = None, False
        return read_documents(self._collection, self._subscription, keys)

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
    collection: Collection,
    subscription: Subscription,
    order: Order,
    limit: int,
    position: Position | None = None,
) -> tuple[SelectedKeys, bool]:
    """Return the primary keys of the first ``limit`` matching rows, and whether there are more.

    The rows are those at a position, or those of now, see `keys_as_of`.
    """
    filter = subscription.query.filter
    size = row_bytes(collection, limit, is_sorted=bool(order.fields))
    keys = keys_as_of(collection, filter, position, limit=limit, order=order, size=size)
    return SelectedKeys(keys.keys, keys.sizes), keys.is_cut


def encode_document(document: Document) -> bytes:
    """Return a document as JSON; without its data if it is larger than an event may be."""
    text = frames.encode_part(document)
    if len(text) <= conf.limits.event_bytes:
        return text
    return frames.encode_part({"id": document["id"], "truncated": True})
