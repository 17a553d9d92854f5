"""A list of the documents that match a filter, which is kept up to date."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from .errors import RealtimeError, call_safely
from .frozen import freeze
from .interfaces import CallLater, Frame
from .messages import Document
from .order import Compare, FieldOrder
from .streams import Broadcaster, Ready
from .subscription import Subscribe, Subscription
from .validation import check_names

# seconds to wait before requesting a snapshot that fills the list up; several documents that leave
# at about the same time then cause only one request
REFILL_DELAY = 0.5

# options that `Live.update` replaces
OPTIONS = frozenset({"filters", "fields", "document"})

Documents = tuple[Document, ...]

# the place before all documents: none is certainly known
NOTHING_KNOWN = Document("", {})


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
        on_mistake: Callable[[RealtimeError], None],
        call_later: CallLater,
    ) -> None:
        # called with refusals of the subscription
        self._on_error = on_error
        # called with errors of `compare` and of readers
        self._on_mistake = on_mistake
        self._call_later = call_later
        self._limit = limit
        # the comparison of the program, and that by the field of `order`
        self._compare_by_program = compare
        self._order = FieldOrder(order)
        # whether that field is requested although `fields` does not name it
        self._adds_order_field = compare is None and self._order.is_by_data
        # the known documents by id; with a limit, up to three times as many
        self._known: dict[str, Document] = {}
        # for the known documents, the data that the server has sent; the program does not see the
        # field of `order` if it has not requested it
        self._sent: dict[str, Document] = {}
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
        self._readers: dict[object, Callable[[Documents], Any]] = {}
        window: dict[str, Any] = {}
        if order is not None:
            window["order"] = order
        if limit is not None:
            window["limit"] = limit
        self._options = {"transitions": True, **options, "snapshot": window or True}
        # the options that the server has accepted
        self._accepted = self._options
        # requests a subscription with other options
        self._request: Callable[[Mapping[str, Any]], Subscription] = lambda options: subscribe(
            collection, options, self
        )
        self._subscription = self._request(self._with_order_field(self._options))

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

    def subscribe(self, reader: Callable[[Documents], Any]) -> Callable[[], None]:
        """Call ``reader`` with `documents` now and after each change.

        Returns a function that ends these calls. ``reader`` may be asynchronous. Its exceptions are
        reported to the client's ``on_error``.
        """
        key = object()
        self._readers[key] = reader
        self._read(key)

        def stop() -> None:
            self._readers.pop(key, None)

        return stop

    async def update(self, **options: Any) -> None:
        """Replace ``filters``, ``fields`` or ``document``.

        The old documents stay until the new ones have arrived. None stands for the
        default. Raises ``TypeError`` or ``ValueError`` for other names and for values that are not
        JSON. If the server refuses the new options, raises `RealtimeError`, and the list continues
        with the old ones.
        """
        check_names(options, OPTIONS)
        self._subscription.update(self._with_order_field(options))
        self._options = {**self._options, **options}
        self._ready = ready = Ready(self._ready)
        await ready.wait()

    def stop(self) -> None:
        """End the subscription. `documents` stays as it is."""
        self._subscription.stop()
        self._ready.fail(RealtimeError("closed", "The list was stopped.", source="connection"))
        self._changes.end()

    def end(self, reason: RealtimeError, *, final: bool) -> None:
        """End the iterators because the client is closed.

        With ``final`` the server does not let it reconnect: remove all documents.
        """
        self._ready.fail(reason)
        if final:
            self._remove_all()
        self._changes.end(reason if final else None)

    # called by the subscription

    def on_event(self, frame: Frame) -> None:
        """Add, replace or remove one document."""
        document = frame["document"]
        boundary = self._last_known
        if boundary is not None and boundary.id == document["id"] and self._may_move(frame):
            # all documents up to the place of this one were known, but the place that the client
            # knows may be a later one: a snapshot has rows in an order that is older than their
            # values
            self._known.pop(boundary.id, None)
            others = self._sort()
            before = [other for other in others if self._compare(other, boundary) < 0]
            self._last_known = before[-1] if before else NOTHING_KNOWN
        if frame["event"] in ("left", "deleted"):
            self._known.pop(document["id"], None)
        else:
            self._add(document)

    def on_events_end(self) -> None:
        """Show the result of the events."""
        self._refresh()

    def on_snapshot(self, documents: list[Frame], truncated: bool) -> None:
        """Replace all documents. A document that has not changed stays the same object."""
        previous, self._known = self._known, {}
        sent, self._sent = self._sent, {}
        for frame in documents:
            self._add(frame)
            id = frame["id"]
            if previous.get(id) == self._known[id] and sent.get(id) == self._sent[id]:
                self._known[id] = previous[id]
        # the last one in the order of the server: another one may have moved behind it since the
        # server has read the order
        self._last_known = self._sent[documents[-1]["id"]] if truncated and documents else None

    def on_resync(self, reason: str) -> None:
        """Do nothing, since a snapshot follows."""

    def on_user_changed(self) -> None:
        """Remove all documents, which another user may not see."""
        if self._ready.is_settled:
            self._ready = Ready()
        self._remove_all()

    def on_kinds(self, kinds: Mapping[str, str]) -> None:
        """Compare values from now on as the server does, which has accepted the options."""
        self._order.kinds = kinds
        if not self._subscription.is_updating:
            self._accepted = self._options

    def on_ready(self) -> None:
        """Let `ready` and `update` return."""
        self._ready.done()

    def on_error(self, error: RealtimeError, *, final: bool) -> None:
        """Let `ready` and `update` raise the error.

        With ``final`` remove all documents, since this client may not see them any more.
        """
        if final and self._adds_order_field and error.code == "bad_request":
            # the field of `order` can perhaps not be read; the program has not asked for it
            self._adds_order_field = False
            if self._options.get("fields") is not None:
                self._subscription = self._request(self._options)
                return
        self._ready.fail(error)
        self._on_error(error)
        if final:
            self._remove_all()
            self._changes.end(error)
        else:
            self._options = self._accepted
            self._ready = Ready()

    def on_failure(self, error: RealtimeError) -> None:
        """Let `ready` raise the error. The documents stay, and are updated after a success."""
        self._ready.fail(error)
        self._ready = Ready()
        self._on_error(error)

    # internal

    def _with_order_field(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options with which documents can be sorted."""
        fields, order = options.get("fields"), self._order.field
        if fields is None or order is None or order in fields or not self._adds_order_field:
            return dict(options)
        return {**options, "fields": [*fields, order]}

    def _add(self, frame: Frame) -> None:
        """Add a document, or replace it."""
        sent = Document.from_frame(frame)
        data = dict(sent.data)
        fields = self._accepted.get("fields")
        if fields is not None and self._adds_order_field and self._order.field not in fields:
            data.pop(self._order.field or "", None)
        self._sent[sent.id] = sent
        self._known[sent.id] = dataclasses.replace(sent, data=freeze(data))

    def _may_move(self, frame: Frame) -> bool:
        """Return whether an event may change a document's place in the order."""
        changed = frame.get("changed")
        return frame["event"] != "updated" or changed is None or self._order.field in changed

    def _remove_all(self) -> None:
        self._known, self._sent, self._last_known = {}, {}, None
        self._refresh()

    def _sort(self) -> list[Document]:
        """Return the known documents in order, as the server has sent them."""
        documents = [self._sent[id] for id in self._known]
        return sorted(documents, key=functools.cmp_to_key(self._compare))

    def _compare(self, a: Document, b: Document) -> int:
        """Compare two documents; no longer by the program's function after it has failed."""
        if self._compare_by_program is not None:
            try:
                result = self._compare_by_program(a, b)
                return (result > 0) - (result < 0) or self._order.compare_ids(a, b)
            except Exception as cause:
                message = f"compare failed: {cause!r}"
                error = RealtimeError("compare_failed", message, source="compare")
                error.__cause__ = cause
                self._compare_by_program = None
                self._on_mistake(error)
        return self._order(a, b) or self._order.compare_ids(a, b)

    def _arrange(self) -> list[Document]:
        """Return the documents that the program sees, as the server has sent them."""
        compare = self._compare_by_program
        documents = self._sort()
        if self._limit is not None:
            documents = self._apply_limit(documents, self._limit)
        # two orders must not be mixed
        return documents if compare is self._compare_by_program else self._arrange()

    def _refresh(self) -> None:
        """Compute the program's documents from the known ones; if they changed, report it."""
        sorted_documents = self._arrange()
        documents = tuple(self._known[document.id] for document in sorted_documents)
        if len(documents) == len(self._documents) and all(
            map(operator.is_, documents, self._documents)
        ):
            return
        self._documents = documents
        self._changes.put(documents)
        for key in list(self._readers):
            self._read(key)

    def _read(self, key: object) -> None:
        """Call a reader with the documents, unless it has been stopped."""
        if reader := self._readers.get(key):
            call_safely(self._on_mistake, reader, self._documents)

    def _apply_limit(self, documents: list[Document], limit: int) -> list[Document]:
        """Return the first documents, and forget those that are far behind them."""
        last_known = self._last_known
        if last_known is NOTHING_KNOWN:
            documents = []
        elif last_known is not None:
            # before a document after the last known one, there may be documents that are unknown
            documents = [
                document for document in documents if self._compare(document, last_known) <= 0
            ]
        if len(documents) > 3 * limit:
            del documents[2 * limit :]
            self._last_known = documents[-1]
        self._known = {document.id: self._known[document.id] for document in documents}
        self._sent = {document.id: document for document in documents}
        if last_known is not None and len(documents) < limit:
            self._schedule_refill()
        return documents[:limit]

    def _schedule_refill(self) -> None:
        if self._refill_scheduled:
            return
        self._refill_scheduled = True

        def refill() -> None:
            self._refill_scheduled = False
            with contextlib.suppress(RealtimeError):  # the list was stopped
                self._subscription.update({})  # subscribe again, to receive a new snapshot

        self._call_later(REFILL_DELAY, refill)
