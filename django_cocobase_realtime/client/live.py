"""A list of the documents that match a filter, which is kept up to date."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from .errors import RealtimeError, call_safely
from .interfaces import CallLater, Frame
from .messages import Document
from .streams import Broadcaster, Ready
from .subscription import Subscribe

# seconds to wait before requesting a snapshot that fills the list up; several documents that leave
# at about the same time then cause only one request
REFILL_DELAY = 0.5

Documents = tuple[Document, ...]
# compares two documents, like the argument of `functools.cmp_to_key`
Compare = Callable[[Document, Document], int]

_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


class Live:
    """A list of the documents that match a filter, in order. Equal documents are sorted by id.

    With ``limit`` the list has only the first documents. Of those that follow, the client knows
    only some. If too many documents leave the list, it requests a new snapshot to fill it up.
    """

    def __init__(
        self,
        subscribe: Subscribe,
        collection: str,
        options: Mapping[str, Any],
        *,
        order: str | None,
        limit: int | None,
        compare: Compare | None,
        on_error: Callable[[RealtimeError], None],
        call_later: CallLater,
    ) -> None:
        self._on_error = on_error
        self._call_later = call_later
        self._limit = limit
        self._compare_by_order = compare or _compare_by_field(order)
        # the known documents by id; with a limit, up to three times as many
        self._known: dict[str, Document] = {}
        # the last document of which it is certain that all before it are known; None if all are
        self._last_known: Document | None = None
        # the documents that the program sees
        self._documents: Documents = ()
        # whether a new snapshot will be requested after REFILL_DELAY
        self._refill_scheduled = False
        # done when the subscription, or new options, were accepted
        self._ready = Ready()
        # the iterators of `changes`
        self._changes: Broadcaster[Documents] = Broadcaster()
        # functions of the program that `subscribe` was called with
        self._readers: dict[object, Callable[[Documents], None]] = {}
        window: dict[str, Any] = {}
        if order is not None:
            window["order"] = order
        if limit is not None:
            window["limit"] = limit
        self._subscription = subscribe(
            collection, {"transitions": True, **options, "snapshot": window or True}, self
        )

    @property
    def documents(self) -> Documents:
        """The current documents. It is the same tuple object until something changes."""
        return self._documents

    async def ready(self) -> Live:
        """Wait until the documents have arrived, and return the list.

        Raises `RealtimeError` if the server refuses the subscription.
        """
        await self._ready.wait()
        return self

    def changes(self) -> AsyncIterator[Documents]:
        """Return an iterator that yields `documents` after each change from now on.

        It ends with `stop` or when the client is closed, and raises `RealtimeError` if the server
        refuses the subscription.
        """
        return self._changes.iterate()

    def subscribe(self, reader: Callable[[Documents], None]) -> Callable[[], None]:
        """Call ``reader`` with `documents` now and after each change.

        Returns a function that ends these calls. An exception in ``reader`` is logged.
        """
        key = object()
        self._readers[key] = reader
        call_safely(reader, self._documents)

        def stop() -> None:
            self._readers.pop(key, None)

        return stop

    async def update(self, **options: Any) -> None:
        """Replace ``filters``, ``fields`` or ``document``.

        The old documents stay until the new ones have arrived. Raises ``TypeError`` or
        ``ValueError`` for values that are not JSON. If the server refuses the new options, raises
        `RealtimeError`, and the list continues with the old ones.
        """
        self._subscription.update(options)
        self._ready = ready = Ready(self._ready)
        await ready.wait()

    def stop(self) -> None:
        """End the subscription. `documents` stays as it is."""
        self._subscription.stop()
        self._changes.end()

    def end(self, error: RealtimeError | None) -> None:
        """End the iterators because the client is closed, or was terminated with ``error``."""
        if error is not None:
            self._ready.fail(error)
        self._changes.end(error)

    # called by the subscription

    def on_event(self, frame: Frame) -> None:
        """Add, replace or remove one document."""
        document = frame["document"]
        if frame["event"] in ("left", "deleted"):
            self._known.pop(document["id"], None)
        else:
            self._known[document["id"]] = Document.from_frame(document)
        self._refresh()

    def on_snapshot(self, documents: list[Frame], truncated: bool) -> None:
        """Replace all documents. A document that has not changed stays the same object."""
        previous, self._known = self._known, {}
        for frame in documents:
            document = Document.from_frame(frame)
            known = previous.get(document.id)
            self._known[document.id] = known if known == document and known else document
        self._last_known = self._sort()[-1] if truncated and self._known else None
        self._refresh()

    def on_resync(self, reason: str) -> None:
        """Do nothing, since a snapshot follows."""

    def on_ready(self) -> None:
        """Let `ready` and `update` return."""
        self._ready.done()

    def on_error(self, error: RealtimeError, *, final: bool) -> None:
        """Let `ready` and `update` raise the error.

        With ``final`` remove all documents, since this client may not see them any more.
        """
        self._ready.fail(error)
        self._on_error(error)
        if final:
            self._known = {}
            self._refresh()
            self._changes.end(error)

    def on_failure(self, error: RealtimeError) -> None:
        """Let `ready` raise the error. The documents stay, and are updated after a success."""
        self._ready.fail(error)
        self._ready = Ready()
        self._on_error(error)

    # internal

    def _sort(self) -> list[Document]:
        return sorted(self._known.values(), key=functools.cmp_to_key(self._compare))

    def _compare(self, a: Document, b: Document) -> int:
        return self._compare_by_order(a, b) or compare_values(a.id, b.id)

    def _refresh(self) -> None:
        """Compute the program's documents from the known ones; if they changed, report it."""
        documents = self._sort()
        if self._limit is not None:
            documents = self._apply_limit(documents, self._limit)
        if len(documents) == len(self._documents) and all(
            map(operator.is_, documents, self._documents)
        ):
            return
        self._documents = tuple(documents)
        self._changes.put(self._documents)
        for reader in list(self._readers.values()):
            call_safely(reader, self._documents)

    def _apply_limit(self, documents: list[Document], limit: int) -> list[Document]:
        """Return the first documents, and forget those that are far behind them."""
        last_known = self._last_known
        if last_known is not None:
            # before a document after the last known one, there may be documents that are unknown
            documents = [
                document for document in documents if self._compare(document, last_known) <= 0
            ]
        if len(documents) > 3 * limit:
            del documents[2 * limit :]
            self._last_known = documents[-1]
        self._known = {document.id: document for document in documents}
        if last_known is not None and len(documents) < limit:
            self._schedule_refill()
        return documents[:limit]

    def _schedule_refill(self) -> None:
        if self._refill_scheduled:
            return
        self._refill_scheduled = True

        def refill() -> None:
            self._refill_scheduled = False
            self._subscription.update({})  # subscribe again, to receive a new snapshot

        self._call_later(REFILL_DELAY, refill)


def compare_values(a: Any, b: Any) -> int:
    """Compare two JSON values; return -1, 0 or 1.

    None is smaller than all other values. Two strings that both contain a number are compared as
    numbers, since decimals and large integers are sent as strings.
    """
    if a == b:
        return 0
    if a is None or b is None:
        return -1 if a is None else 1
    if isinstance(a, str) and isinstance(b, str):
        if _NUMBER.fullmatch(a) and _NUMBER.fullmatch(b):
            a, b = float(a), float(b)
    elif not (isinstance(a, int | float) and isinstance(b, int | float)):
        a, b = str(a), str(b)
    return int(a > b) - int(a < b)


def _compare_by_field(order: str | None) -> Compare:
    """Return the comparison for an order such as ``"title"`` or ``"-title"`` (descending)."""
    if order is None:
        return lambda a, b: 0
    sign = -1 if order.startswith("-") else 1
    field = order.removeprefix("-")

    def get_value(document: Document) -> Any:
        # the primary key is not part of the data: it is the document's id
        return document.data.get(field, document.id)

    return lambda a, b: sign * compare_values(get_value(a), get_value(b))
