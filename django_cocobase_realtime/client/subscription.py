"""One subscription over many connections: what to ask, and what an answer means. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .errors import CLOSED, RealtimeError, Reply, ensure_json

if TYPE_CHECKING:
    from .protocol import Conversation

SEEN = 1000  # cursors remembered to tell duplicates


class Sink(Protocol):
    """Who wants to know. Called in the order of the stream."""

    def on_event(self, frame: Reply) -> None:
        """A change."""

    def on_snapshot(self, documents: list[Reply], truncated: bool) -> None:
        """The whole of what matches now, or as much of it as was asked for."""

    def on_resync(self, reason: str) -> None:
        """What was missed can not be told; a snapshot follows where one is asked for."""

    def on_ready(self) -> None:
        """Subscribed, and the snapshot, if there is one, has come."""

    def on_error(self, error: RealtimeError, *, over: bool) -> None:
        """Refused; ``over`` where nothing more will come."""


class Seen:
    """Tells frames whose cursor came before, and holds how far one is."""

    __slots__ = ("_cursors", "cursor")

    def __init__(self) -> None:
        self.cursor: str | None = None
        self._cursors: dict[str, None] = {}

    def is_new(self, frame: Reply) -> bool:
        """Note a frame's cursor; False where it was here. Frames without one are always new."""
        cursor = frame.get("cursor")
        if cursor is None:
            return True
        if cursor in self._cursors:
            return False
        self._cursors[cursor] = None
        if len(self._cursors) > SEEN:
            del self._cursors[next(iter(self._cursors))]
        self.cursor = cursor
        return True


class Subscription:
    """``options`` are the keys of a ``subscribe`` frame, but for its names and its position."""

    def __init__(
        self,
        talk: Conversation,
        name: str,
        collection: str,
        options: Mapping[str, Any],
        sink: Sink,
    ) -> None:
        self.name = name
        self.collection = collection
        self.active = False  # on this connection
        self.paused = False
        self.scope: str | None = None
        self._talk = talk
        self._options = dict(options)
        self._next: dict[str, Any] | None = None  # what is to replace the options
        self._seen = Seen()
        self._pages: list[Reply] | None = None  # of the snapshot that is arriving
        self._sink = sink

    @property
    def cursor(self) -> str | None:
        """How far this subscription is complete; None before that is known."""
        return self._seen.cursor

    def start(self) -> None:
        """Ask for it, from where it is."""
        if self.paused or self._talk.subscriptions.get(self.name) is not self:
            return
        wanted = self._options if self._next is None else self._next
        since = {}
        if self._next is None and self.cursor is not None:
            since = {"since": self.cursor, "scope": self.scope}

        def answer(reply: Reply) -> None:
            if reply["type"] == "error":
                self._refused(reply, wanted)
            else:
                self._started(reply, wanted)

        names = {"subscription": self.name, "collection": self.collection}
        self._talk.ask({"type": "subscribe", **names, **wanted, **since}, answer)

    def update(self, options: Mapping[str, Any]) -> None:
        """Replace some options. Refused ones leave the old subscription as it is."""
        ensure_json(options)
        self._next = {**(self._next or self._options), **options}
        if self._talk.live:
            self.start()

    def stop(self) -> None:
        """End it."""
        if self._talk.subscriptions.pop(self.name, None) is not None:
            self._talk.ask({"type": "unsubscribe", "subscription": self.name})

    def pause(self) -> None:
        """Ask for nothing more until `unpause`, which goes on from the same place."""
        self.paused = True
        if self.active:
            self.active = False
            self._talk.ask({"type": "unsubscribe", "subscription": self.name})

    def unpause(self) -> None:
        """Go on after a `pause`."""
        self.paused = False
        if self._talk.live:
            self.start()

    def take(self, frame: Reply) -> None:
        """An ``event``, ``snapshot`` or ``cursor`` frame of this subscription."""
        if self.paused or not self.active:
            # sent before a pause was heard of: taken, it would hide what the pause left out
            return
        if frame["type"] == "event":
            if self._seen.is_new(frame):
                self._sink.on_event(frame)
        elif frame["type"] == "cursor":
            if self._pages is None:
                self._seen.cursor = frame["cursor"]
        elif self._pages is not None:
            self._pages += frame["documents"]
            if not frame["more"]:
                documents, self._pages = self._pages, None
                self._seen.cursor = frame["cursor"]
                self._sink.on_snapshot(documents, frame.get("truncated", False))
                self._done()

    def _started(self, reply: Reply, wanted: dict[str, Any]) -> None:
        self.active = not self.paused
        self._options = wanted
        self.scope = reply.get("scope")
        if self._next is wanted:
            self._next = None
        self._pages = None
        if reply.get("resumed"):
            self._done()
            return
        self._seen = Seen()
        if "resync" in reply:
            self._sink.on_resync(reply["resync"]["reason"])
        if wanted.get("snapshot"):
            # whoever is cut off within a snapshot must not go on from its end
            self._pages = []
        else:
            self._seen.cursor = reply.get("cursor")
            self._done()

    def _refused(self, reply: Reply, wanted: dict[str, Any]) -> None:
        if reply is CLOSED or self._talk.subscriptions.get(self.name) is not self:
            return
        if self._next is not None and self._next is not wanted:
            return  # what takes its place is under way
        if reply.get("retry_after_ms") is not None:
            self._talk.later(reply["retry_after_ms"] / 1000, self.start)
            return
        replacing = self._next is wanted
        if replacing:
            self._next = None  # the old one stays
            if not self.active:
                self.start()
        else:
            del self._talk.subscriptions[self.name]
        self._sink.on_error(RealtimeError.from_frame(reply), over=not replacing)

    def _done(self) -> None:
        if self._next is None:
            self._sink.on_ready()
