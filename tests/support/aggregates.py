"""A client of aggregates in tests: it makes groups of the frames alone."""

from __future__ import annotations

from typing import Any


class AggregateClient:
    """The groups of an aggregate, made of the frames of one subscription."""

    def __init__(self, connection: Any, collection: str = "posts", name: str = "a") -> None:
        self.connection = connection
        self.collection = collection
        self.name = name
        # groups of frames by the values that make them
        self.groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.cursor: str | None = None
        self.scope: str | None = None
        # the frames that were received
        self.frames: list[dict[str, Any]] = []
        self._parts: list[dict[str, Any]] = []

    async def subscribe(self, aggregate: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Subscribe, and return the reply."""
        await self.connection.send(
            {
                "type": "subscribe",
                "collection": self.collection,
                "subscription": self.name,
                "aggregate": aggregate,
                **options,
            }
        )
        reply = await self.connection.receive()
        assert reply["type"] == "subscribed", reply
        assert "cursor" not in reply
        self.scope = reply["scope"]
        return dict(reply)

    async def start(self, aggregate: dict[str, Any], **options: Any) -> None:
        """Subscribe, and receive all groups."""
        await self.subscribe(aggregate, **options)
        frame = await self.receive()
        assert self.frames[0]["reset"], frame

    async def receive(self) -> dict[str, Any]:
        """Receive a frame that is not a part, and return it."""
        while True:
            frame = await self.connection.receive()
            self.apply(frame)
            if "partial" not in frame:
                return dict(frame)

    def apply(self, frame: dict[str, Any]) -> None:
        """Apply a frame as clients do."""
        assert frame["type"] in ("aggregate", "cursor"), frame
        assert frame["subscription"] == self.name
        if frame["type"] == "cursor":
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
            if part.get("reset"):
                self.groups = {}
            for group in part["groups"]:
                key = tuple(group.get("key", {}).values())
                if group["count"] or "key" not in group:
                    self.groups[key] = group
                else:
                    del self.groups[key]  # a group that the client has
        self.cursor = frame["cursor"]
        self.scope = frame.get("scope", self.scope)

    @property
    def counts(self) -> dict[Any, int]:
        """The numbers of rows by the only value that makes each group, or by a tuple of several."""
        return {
            key[0] if len(key) == 1 else key: group["count"] for key, group in self.groups.items()
        }

    @property
    def only(self) -> dict[str, Any]:
        """The only group."""
        (group,) = self.groups.values()
        return group
