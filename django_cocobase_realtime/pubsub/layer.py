"""The project's channel layer: how to find it, the names of its groups, and one channel of it."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from hashlib import blake2s
from typing import Any, cast

from channels.layers import InMemoryChannelLayer, get_channel_layer

from ..conf import conf

MESSAGE_TYPE = "realtime.events"
ORIGIN = "origin"
"""Key of a message: the process that published it and does not need it."""
SEND_TIMEOUT = 5.0
"""Seconds that one call of the layer may take."""
CONTROL_GROUP = "realtime.control"
"""The group that every process joins: disconnects, changed permissions, direct messages."""


def channel_layer() -> Any:
    """Return the project's channel layer, or None if it has none."""
    return get_channel_layer(conf.channel_layer)


def is_in_memory(layer: Any) -> bool:
    """Return whether the layer reaches this process only."""
    return isinstance(layer, InMemoryChannelLayer)


# Channels allows ASCII letters, digits, hyphen, underscore and period in the name of a group, and
# fewer than 100 characters. Names of collections and rooms are any text: groups carry a digest.


@lru_cache(maxsize=4096)
def collection_group(collection: str) -> str:
    """Return the group that receives the changes of a collection."""
    return "realtime.collection." + _digest(collection)


@lru_cache(maxsize=4096)
def room_group(project: str, room: str) -> str:
    """Return the group of a room. Rooms of different projects never share a group."""
    return "realtime.room." + _digest(f"{len(project)}:{project}{room}")


def _digest(text: str) -> str:
    return blake2s(text.encode(), digest_size=16).hexdigest()


class LayerChannel:
    """One channel of the layer. All methods raise what the layer raises."""

    def __init__(self, layer: Any, channel: str, origin: str) -> None:
        self._layer = layer
        self._channel = channel
        self._origin = origin

    @classmethod
    async def open(cls, origin: str = "") -> LayerChannel | None:
        """Return a new channel that ignores messages from ``origin``; None without a layer."""
        layer = channel_layer()
        if layer is None:
            return None
        return cls(layer, await layer.new_channel(), origin)

    async def join(self, group: str) -> None:
        """Receive what is sent to ``group``; call again to renew the membership."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._layer.group_add(group, self._channel)

    async def leave(self, group: str) -> None:
        """Stop receiving what is sent to ``group``."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._layer.group_discard(group, self._channel)

    async def receive(self) -> list[bytes]:
        """Wait for the next message; return its payloads in the order of their publication."""
        message = await self._layer.receive(self._channel)
        if message.get("type") != MESSAGE_TYPE or message.get(ORIGIN, "") == self._origin != "":
            return []
        return cast("list[bytes]", message["events"])
