"""The channel layer as it is: where it is looked up, and one channel of it to listen to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from channels.layers import InMemoryChannelLayer, get_channel_layer

from ..conf import conf

MESSAGE_TYPE = "realtime.events"
ORIGIN = "origin"  # in a message: the process that need not hear it
SEND_TIMEOUT = 5.0  # seconds that one call of the layer may take


def channel_layer() -> Any:
    """The project's channel layer, or None where it has none."""
    return get_channel_layer(conf.channel_layer)


def is_in_memory(layer: Any) -> bool:
    """Whether the layer ends at this process."""
    return isinstance(layer, InMemoryChannelLayer)


class LayerChannel:
    """One channel of the layer, and its group memberships.

    ``receive`` waits for the next message's payloads. All methods raise what the layer raises.
    """

    def __init__(self, layer: Any, channel: str, origin: str) -> None:
        self._layer = layer
        self._channel = channel
        self._origin = origin

    @classmethod
    async def open(cls, origin: str = "") -> LayerChannel | None:
        """A new channel, deaf to what comes from ``origin``; None without a channel layer."""
        layer = channel_layer()
        if layer is None:
            return None
        return cls(layer, await layer.new_channel(), origin)

    async def join(self, group: str) -> None:
        """Be sent what is sent to ``group``; again to renew."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._layer.group_add(group, self._channel)

    async def leave(self, group: str) -> None:
        """Be sent no more of it."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._layer.group_discard(group, self._channel)

    async def receive(self) -> list[bytes]:
        """Payloads of the next message, in the order in which they were published."""
        message = await self._layer.receive(self._channel)
        if message.get("type") != MESSAGE_TYPE or message.get(ORIGIN, "") == self._origin != "":
            return []
        return cast("list[bytes]", message["events"])
