"""A list of the documents that match a filter, which is kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .documents import create_document, create_documents, splice
from .errors import RealtimeError
from .interfaces import Frame
from .messages import Document
from .store import Store
from .subscription import Subscribe
from .validation import check_names

# options of the window, which the server keeps if one of them is given
WINDOW_OPTIONS = ("order", "limit", "after")
# options that `Live.update` replaces
OPTIONS = frozenset({"filters", "fields", "document", *WINDOW_OPTIONS})

Documents = tuple[Document, ...]


class Live(Store[Document]):
    """A list of the documents that match a filter.

    With ``order``, ``limit`` or ``after`` it is a window, which the server keeps: its frames say
    which documents to remove, and which to insert at which index. Otherwise it has all documents,
    from a snapshot and the events that follow it; new documents are at the end.
    """

    def __init__(
        self,
        subscribe: Subscribe,
        collection: str,
        options: Mapping[str, Any],
        *,
        transitions: bool,
        on_error: Callable[[RealtimeError], None],
        on_mistake: Callable[[RealtimeError], None],
    ) -> None:
        # whether a list without a window follows documents that no longer match
        self._transitions = transitions
        # number of documents by which `more` extends the window; None before it is known
        self._page_size: int | None = options.get("limit")
        # whether further documents match
        self._has_more = False
        super().__init__(on_error=on_error, on_mistake=on_mistake)
        # the last cursor of the next page that the server has sent
        self._next: str | None = None
        self._subscription = subscribe(collection, self._create_request(options, {}), self)

    @property
    def documents(self) -> Documents:
        """The current documents. It is the same tuple object until something changes."""
        return self._value

    @property
    def has_more(self) -> bool:
        """Whether further documents match, which are behind the last one of the list."""
        return self._has_more

    @property
    def next(self) -> str | None:
        """The cursor of the next page, which another list can begin with as ``after``.

        None if there is no further document, or if the list is no window.
        """
        return self._next if self._has_more else None

    async def more(self, n: int | None = None) -> None:
        """Extend the list by ``n`` documents, by default by its first limit.

        Returns when they have arrived; if the list has no limit, when it is `ready`. If the server
        refuses, raises `RealtimeError`, and the list stays as it is.
        """
        window = self._get_window()
        limit = window.get("limit")
        if limit is None:
            await self._ready.wait()
            return
        if self._page_size is None:
            self._page_size = limit
        n = self._page_size if n is None else n
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"more() takes a positive number of documents, not {n!r}.")
        await self._update(self._create_request({"limit": limit + n}, window))

    async def update(self, **options: Any) -> None:
        """Replace some of ``filters``, ``fields``, ``document``, ``order``, ``limit``, ``after``.

        The old documents stay until the new ones have arrived. None stands for the
        default. Raises ``TypeError`` or ``ValueError`` for other names and for values that are not
        JSON. If the server refuses the new options, raises `RealtimeError`, and the list continues
        with the old ones.
        """
        check_names(options, OPTIONS)
        await self._update(self._create_request(options, self._get_window()))

    # called by the subscription

    def on_event(self, frame: Frame) -> None:
        """Add, replace or remove one document."""
        document = frame["document"]
        if frame["event"] in ("left", "deleted"):
            self._edit().pop(document["id"], None)
        else:
            self._edit()[document["id"]] = create_document(document)

    def on_snapshot(self, documents: list[Frame], truncated: bool) -> None:
        """Replace all documents."""
        self._items = create_documents(documents)
        self._has_more, self._next = truncated, None

    def on_result(self, parts: list[Frame]) -> None:
        """Apply a change of the window."""
        self._items = splice(self._items.values(), parts)
        last = parts[-1]
        self._has_more = last["more"]
        # a cursor that has not changed is not sent again
        self._next = last.get("next", self._next)

    # internal

    def _get_window(self) -> dict[str, Any]:
        """Return the options of the window that were requested last."""
        options = self._subscription.options
        return dict(options.get("window", {}))

    def _create_request(
        self, options: Mapping[str, Any], window: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return keys of a ``subscribe`` frame for some options, with a window if there is one.

        ``window`` has the present options of the window.
        """
        window = {**window, **{name: options[name] for name in WINDOW_OPTIONS if name in options}}
        window = {name: value for name, value in window.items() if value is not None}
        request = {name: value for name, value in options.items() if name not in WINDOW_OPTIONS}
        if window:
            return {**request, "window": window, "snapshot": None, "transitions": None}
        return {**request, "window": None, "snapshot": True, "transitions": self._transitions}

    @property
    def _detail(self) -> object:
        return self._has_more

    def _clear(self) -> None:
        super()._clear()
        self._has_more, self._next = False, None
