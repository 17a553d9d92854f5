"""The number of processes that have joined a group of the channel layer."""

from __future__ import annotations

import logging
import time
from typing import Any

from .groups import RENEW_INTERVAL
from .layer import channel_layer

logger = logging.getLogger(__name__)

# seconds since its last renewal after which a process does not count as a member
MAX_AGE = 2 * RENEW_INTERVAL


async def count_members(group: str) -> int | None:
    """Return how many hubs have joined a group; None if the layer does not know.

    The layers of channels_redis know it, although Channels has no method for it. The core layer
    also counts processes that were killed, for `MAX_AGE` seconds.
    """
    layer: Any = channel_layer()
    try:
        if hasattr(layer, "_group_key"):  # the core layer
            redis = layer.connection(layer.consistent_hash(group))
            return int(await redis.zcount(layer._group_key(group), time.time() - MAX_AGE, "+inf"))
        if hasattr(layer, "_get_group_channel_name"):  # the pubsub layer
            channel = layer._get_group_channel_name(group)
            shard = layer._get_shard(channel)
            shard._ensure_redis()
            ((_, count),) = await shard._redis.pubsub_numsub(channel)
            return int(count)
    except Exception as error:
        logger.debug("The members of a group cannot be counted: %r", error)
    return None
