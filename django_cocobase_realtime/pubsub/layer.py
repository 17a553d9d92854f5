"""Access to the project's channel layer: the layer, names of groups, and a channel."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from hashlib import blake2s
from typing import Any, cast

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.conf import settings

from ..conf import conf

# `type` of this app's messages in the channel layer
MESSAGE_TYPE = "realtime.events"
# key of a message whose value is the process that published it, if that must not receive it
ORIGIN = "origin"
# seconds that one call of the layer may take
SEND_TIMEOUT = 5.0
# iterations of the event loop after which a task has acquired a lock that was released
LOCK_TURNS = 5
# the group that every server process joins, for direct messages, disconnections, changed
# permissions and broadcasts to a whole project
CONTROL_GROUP = "realtime.control"
# what the layers of channels_redis use without ``hosts``
DEFAULT_HOST = "redis://localhost:6379"


def channel_layer() -> Any:
    """Return the project's channel layer, or None if it has none."""
    return get_channel_layer(conf.channel_layer)


def layer_hosts() -> list[Any]:
    """Return the hosts in the configuration of the project's channel layer."""
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get(conf.channel_layer, {})
    hosts = (layer.get("CONFIG") or {}).get("hosts")
    if not hosts and str(layer.get("BACKEND", "")).startswith("channels_redis."):
        return [DEFAULT_HOST]
    return [] if not hosts or isinstance(hosts, str | bytes) else list(hosts)


def has_several_hosts() -> bool:
    """Return whether the layer distributes groups among several servers."""
    return len(layer_hosts()) > 1


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


def answer_group(request: str) -> str:
    """Return the name of the group that receives the answers to a request."""
    return "realtime.answer." + _digest(request)


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
        # what `_run_id` returned for each Redis; empty before the first call
        self._run_ids: list[str | None] = []

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

    async def stop_receiving(self, task: asyncio.Task[None]) -> None:
        """Cancel a task that calls `receive`, by which the layer releases the channel.

        The core layer first confirms the last message. If the task was cancelled meanwhile, while
        it waits for the layer's lock, the lock would be bound to this event loop forever.
        """
        wait_received = getattr(self._layer, "wait_received", None)
        if wait_received is not None:
            await wait_received()
            for _ in range(LOCK_TURNS):
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    async def has_lost_groups(self) -> bool:
        """Return whether a Redis has been restarted since the last call, and so has lost groups.

        Only a core layer with several hosts needs this: it receives from one of them, and does not
        notice that another one was restarted. With one host, `receive` raises an exception, and
        the pubsub layer subscribes again.
        """
        hosts = getattr(self._layer, "ring_size", 1)
        if hosts == 1:
            return False
        previous = self._run_ids
        self._run_ids = await asyncio.gather(*map(self._run_id, range(hosts)))
        return any(
            new is not None and new != old
            for old, new in zip(previous, self._run_ids, strict=bool(previous))
        )

    async def _run_id(self, host: int) -> str | None:
        """Return what identifies the process of a Redis, or None if it does not answer."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                information = await self._layer.connection(host).info("server")
            return cast("str", information["run_id"])
        except Exception:
            return None
