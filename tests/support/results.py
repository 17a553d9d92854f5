"""A client of live queries in tests: it makes lists and groups of the frames alone."""

from __future__ import annotations

from typing import Any


class ResultClient:
    """The result of a live query, made of the frames of one subscription."""

    # the key of the request, and the type of the frames
    kind = ""

    def __init__(self, connection: Any, collection: str = "posts", name: str = "") -> None:
        self.connection = connection
        self.collection = collection
        self.name = name or self.kind[0]
        self.cursor: str | None = None
        self.scope: str | None = None
        # the frames that were received
        self.frames: list[dict[str, Any]] = []
        self._parts: list[dict[str, Any]] = []

    async def subscribe(self, query: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Subscribe, and return the reply."""
        await self.connection.send(
            {
                "type": "subscribe",
                "collection": self.collection,
                "subscription": self.name,
                self.kind: query,
                **options,
            }
        )
        reply = await self.connection.receive()
        assert reply["type"] == "subscribed", reply
        assert "cursor" not in reply
        self.scope = reply["scope"]
        return dict(reply)

    async def start(self, query: dict[str, Any], **options: Any) -> None:
        """Subscribe, and receive the result."""
        await self.subscribe(query, **options)
        await self.receive()

    async def receive(self) -> dict[str, Any]:
        """Receive a frame that is not a part, and return it."""
        while True:
            frame = await self.connection.receive()
            self.apply(frame)
            if "partial" not in frame:
                return dict(frame)

    def apply(self, frame: dict[str, Any]) -> None:
        """Apply a frame as clients do, and check that it is consistent."""
        assert frame["type"] in (self.kind, "cursor"), frame
        assert frame["subscription"] == self.name
        if frame["type"] == "cursor":
            assert not self._parts
            self.cursor = frame["cursor"]
            return
        self.frames.append(frame)
        if frame.get("reset"):
            self._parts = []
        self._parts.append(frame)
        if frame.get("partial"):
            assert "cursor" not in frame
            return
        parts, self._parts = self._parts, []
        for part in parts:
            self._splice(part)
        self.cursor = frame["cursor"]
        self.scope = frame.get("scope", self.scope)
        self._end(frame)

    def _splice(self, frame: dict[str, Any]) -> None:
        """Apply a part."""
        raise NotImplementedError

    def _end(self, frame: dict[str, Any]) -> None:
        """Handle that the last part, this frame, was applied."""


class WindowClient(ResultClient):
    """The documents of a window."""

    kind = "window"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.documents: list[dict[str, Any]] = []
        self.more: bool | None = None
        self.next: str | None = None

    def _end(self, frame: dict[str, Any]) -> None:
        ids = self.ids
        assert len(set(ids)) == len(ids), ids
        self.more = frame["more"]
        self.next = frame.get("next", self.next) if self.more else None

    def _splice(self, frame: dict[str, Any]) -> None:
        if frame.get("reset"):
            self.documents = []
        ids = [document["id"] for document in self.documents]
        for id in frame["remove"]:
            del self.documents[ids.index(id)]
            ids.remove(id)
        for index, document in frame["insert"]:
            assert 0 <= index <= len(self.documents)
            self.documents.insert(index, document)

    @property
    def ids(self) -> list[str]:
        """The ids of the documents, in order."""
        return [document["id"] for document in self.documents]

    def values(self, name: str) -> list[Any]:
        """Return the values of a field, in order."""
        return [document["data"][name] for document in self.documents]
