"""Access to the project's channel layer: the layer, names of groups, and a channel."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from hashlib import blake2s
from typing import Any, cast

from channels.layers import InMemoryChannelLayer, get_channel_layer

from ..conf import conf

# `type` of this app's messages in the channel layer
MESSAGE_TYPE = "realtime.events"
# key of a message whose value is the process that published it, if that must not receive it
ORIGIN = "origin"
# seconds that one call of the layer may take
SEND_TIMEOUT = 5.0
# the group that every server process joins, for direct messages, disconnections, changed
# permissions and broadcasts to a whole project
CONTROL_GROUP = "realtime.control"


def channel_layer() -> Any:
    """Return the project's channel layer, or None if it has none."""
    return get_channel_layer(conf.channel_layer)


def is_in_memory(layer: Any) -> bool:
    """Return whether the layer reaches this process only."""
    return isinstance(layer, InMemoryChannelLayer)


# In names of groups, Channels allows ASCII letters, digits, hyphens, underscores and periods, and
# fewer than 100 characters. Names of collections and rooms may be any text, so they are hashed.


@lru_cache(maxsize=4096)
def collection_group(collection: str) -> str:
    """Return the name of the group that receives the changes of a collection."""
    return "realtime.collection." + _digest(collection)


@lru_cache(maxsize=4096)
def room_group(project: str, room: str) -> str:
    """Return the name of the group that receives the events of a room, which is in a project."""
    return "realtime.room." + _digest(f"{len(project)}:{project}{room}")


def _digest(text: str) -> str:
    return blake2s(text.encode(), digest_size=16).hexdigest()


class LayerChannel:
    """A channel of the channel layer. All methods raise the exceptions of the layer."""

    def __init__(self, layer: Any, channel: str, origin: str) -> None:
        self._layer = layer
        # name of the channel
        self._channel = channel
        # process whose messages are ignored if they are marked with `ORIGIN`
        self._origin = origin

    @classmethod
    async def open(cls, origin: str = "") -> LayerChannel | None:
        """Return a new channel, or None if there is no layer.

        Messages that ``origin`` has published for other processes only are ignored.
        """
        layer = channel_layer()
        if layer is None:
            return None
        return cls(layer, await layer.new_channel(), origin)

    async def join(self, group: str) -> None:
        """Receive the messages to a group from now on; if it is joined, renew the membership."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._layer.group_add(group, self._channel)

    async def leave(self, group: str) -> None:
        """Stop receiving the messages to a group."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._layer.group_discard(group, self._channel)

    async def receive(self) -> list[bytes]:
        """Wait for a message, and return its encoded events in the order of their publication."""
        message = await self._layer.receive(self._channel)
        if message.get("type") != MESSAGE_TYPE or message.get(ORIGIN, "") == self._origin != "":
            return []
        return cast("list[bytes]", message["events"])
