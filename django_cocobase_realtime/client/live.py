"""The documents that match a filter, as they are now: a set that keeps itself up to date."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import RealtimeError, Reply, call_safely
from .messages import Document
from .streams import Broadcaster, Ready

if TYPE_CHECKING:
    from .protocol import Conversation

REFILL = 0.5  # seconds before a fresh snapshot is asked for
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)

Documents = tuple[Document, ...]
Compare = Callable[[Document, Document], int]


def ascending(a: Any, b: Any) -> int:
    """Compare two values of JSON; None is smaller than all. Text that is a number counts as one.

    Decimals and large integers travel as text.
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


class Live:
    """``documents``, in order, ties by id.

    With a ``limit`` it is a window: what sorts behind its last document is not kept, and where
    documents leave, a fresh snapshot fills it up.
    """

    def __init__(
        self,
        talk: Conversation,
        collection: str,
        options: Mapping[str, Any],
        *,
        order: str | None,
        limit: int | None,
        compare: Compare | None,
        on_error: Callable[[RealtimeError], None],
    ) -> None:
        self._talk = talk
        self._on_error = on_error
        self._limit = limit
        self._by = compare or _by(order)
        self._known: dict[str, Document] = {}
        self._last: Document | None = None  # behind it there may be documents that we do not know
        self._shown: Documents = ()
        self._refilling = False
        self._ready = Ready()
        self._changes: Broadcaster[Documents] = Broadcaster()
        self._readers: dict[object, Callable[[Documents], None]] = {}
        wanted = {"order": order, "limit": limit}
        snapshot: Any = {key: value for key, value in wanted.items() if value is not None} or True
        self._subscription = talk.subscribe(
            collection, {"transitions": True, **options, "snapshot": snapshot}, self
        )

    @property
    def documents(self) -> Documents:
        """What is there now; the same tuple until it changes."""
        return self._shown

    async def ready(self) -> Live:
        """Wait until the documents have come. Raises `RealtimeError` where it is refused."""
        await self._ready.wait()
        return self

    def changes(self) -> AsyncIterator[Documents]:
        """The documents after each change from here on."""
        return self._changes.iterate()

    def subscribe(self, reader: Callable[[Documents], None]) -> Callable[[], None]:
        """Call ``reader`` with the documents, now and after each change; returns what ends that."""
        key = object()
        self._readers[key] = reader
        call_safely(reader, self._shown)

        def stop() -> None:
            self._readers.pop(key, None)

        return stop

    async def update(self, **options: Any) -> None:
        """Replace ``filters`` (or ``fields``); the old documents stay until the new ones are here.

        Raises `RealtimeError` where that is refused, and the old ones stay.
        """
        self._subscription.update(options)
        self._ready = ready = Ready(self._ready)
        await ready.wait()

    def stop(self) -> None:
        """End it; the documents stay as they are."""
        self._subscription.stop()
        self._changes.end()

    def end(self, error: RealtimeError | None) -> None:
        """The client is done for."""
        if error is not None:
            self._ready.fail(error)
        self._changes.end(error)

    # what the subscription calls

    def on_event(self, frame: Reply) -> None:
        """A change."""
        document = frame["document"]
        if frame["event"] in ("left", "deleted"):
            self._known.pop(document["id"], None)
        else:
            self._known[document["id"]] = Document.from_frame(document)
        self._show()

    def on_snapshot(self, documents: list[Reply], truncated: bool) -> None:
        """The whole of it, in place of what was known; what is the same stays the same object."""
        old, self._known = self._known, {}
        for each in documents:
            found = Document.from_frame(each)
            before = old.get(found.id)
            self._known[found.id] = before if before == found and before else found
        self._last = self._sorted()[-1] if truncated and self._known else None
        self._show()

    def on_resync(self, reason: str) -> None:
        """A snapshot follows."""

    def on_ready(self) -> None:
        """The documents are here."""
        self._ready.done()

    def on_error(self, error: RealtimeError, *, over: bool) -> None:
        """Refused: what may not be seen any more is not shown any more."""
        self._ready.fail(error)
        self._on_error(error)
        if over:
            self._known = {}
            self._show()
            self._changes.end(error)

    # inside

    def _sorted(self) -> list[Document]:
        return sorted(self._known.values(), key=functools.cmp_to_key(self._compare))

    def _compare(self, a: Document, b: Document) -> int:
        return self._by(a, b) or ascending(a.id, b.id)

    def _show(self) -> None:
        shown = self._sorted()
        if self._limit is not None:
            last = self._last
            if last is not None:
                shown = [each for each in shown if self._compare(each, last) <= 0]
            if len(shown) > 3 * self._limit:
                del shown[2 * self._limit :]
                self._last = shown[-1]
            self._known = {each.id: each for each in shown}
            if last is not None and len(shown) < self._limit:
                self._refill()
            shown = shown[: self._limit]
        if len(shown) == len(self._shown) and all(map(_same, shown, self._shown)):
            return
        self._shown = tuple(shown)
        self._changes.put(self._shown)
        for reader in list(self._readers.values()):
            call_safely(reader, self._shown)

    def _refill(self) -> None:
        if self._refilling:
            return
        self._refilling = True

        def refill() -> None:
            self._refilling = False
            self._subscription.update({})

        self._talk.soon(REFILL, refill)


def _by(order: str | None) -> Compare:
    if order is None:
        return lambda a, b: 0
    sign = -1 if order.startswith("-") else 1
    field = order.removeprefix("-")

    def value(document: Document) -> Any:
        # the primary key is the document's id, and not among its data
        return document.data.get(field, document.id)

    return lambda a, b: sign * ascending(value(a), value(b))


def _same(a: Document, b: Document) -> bool:
    return a is b
