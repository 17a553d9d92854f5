"""A client of live queries in tests: it makes lists and groups of the frames alone."""

from __future__ import annotations

from typing import Any


class WindowClient:
    """The documents of a window, made of the frames of one subscription."""

    def __init__(self, connection: Any, collection: str = "posts", name: str = "w") -> None:
        self.connection = connection
        self.collection = collection
        self.name = name
        self.documents: list[dict[str, Any]] = []
        self.more: bool | None = None
        self.next: str | None = None
        self.cursor: str | None = None
        self.scope: str | None = None
        # the frames that were received
        self.frames: list[dict[str, Any]] = []
        self._parts: list[dict[str, Any]] = []

    async def subscribe(self, window: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Subscribe, and return the reply."""
        await self.connection.send(
            {
                "type": "subscribe",
                "collection": self.collection,
                "subscription": self.name,
                "window": window,
                **options,
            }
        )
        reply = await self.connection.receive()
        assert reply["type"] == "subscribed", reply
        self.scope = reply["scope"]
        return dict(reply)

    async def start(self, window: dict[str, Any], **options: Any) -> None:
        """Subscribe, and receive the whole window."""
        await self.subscribe(window, **options)
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
        assert frame["type"] in ("window", "cursor"), frame
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
            return
        parts, self._parts = self._parts, []
        for part in parts:
            self._splice(part)
        ids = [document["id"] for document in self.documents]
        assert len(set(ids)) == len(ids), ids
        self.more, self.cursor = frame["more"], frame["cursor"]
        self.next = frame.get("next", self.next) if self.more else None
        self.scope = frame.get("scope", self.scope)

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
