"""Answers of a hub to the requests of other processes to describe its state."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from ..events import StatePart, StateRequested
from ..hub.hub import Hub
from ..pubsub.broker import broker
from ..utils.concurrency import set_owner, spawn_task
from ..utils.fair_queue import SERVER
from .describe import (
    describe_connections,
    describe_followers,
    describe_rooms,
    describe_server,
)

logger = logging.getLogger(__name__)

# bytes of a part of an answer, unless one description is larger
MAX_PART_BYTES = 256 * 1024

# functions that describe a part of a hub's state, by subject; each yields dataclasses
DESCRIPTIONS: dict[str, Callable[[Hub], AsyncIterator[Any]]] = {
    "connections": describe_connections,
    "followers": describe_followers,
    "rooms": describe_rooms,
    "servers": describe_server,
}


async def describe(hub: Hub, subject: str) -> list[Any]:
    """Return the descriptions of a hub for one subject. Must run in the hub's event loop."""
    return [item async for item in DESCRIPTIONS[subject](hub)]


def answer(hub: Hub, request: StateRequested) -> None:
    """Start to answer a request, unless this process has made it."""
    if request.origin != broker.origin and request.subject in DESCRIPTIONS:
        spawn_task(_answer(hub, request))


async def _answer(hub: Hub, request: StateRequested) -> None:
    """Send all descriptions in parts, each of them when the layer has accepted the one before."""
    set_owner(SERVER)
    name, length = uuid.uuid4().hex, 0
    items: list[Any] = []
    try:
        async for item in DESCRIPTIONS[request.subject](hub):
            value = msgspec.to_builtins(item)
            size = len(msgspec.json.encode(value))
            if items and length + size > MAX_PART_BYTES:
                if not await broker.send(StatePart(request.id, name, items, is_last=False)):
                    return
                items, length = [], 0
            items.append(value)
            length += size
        await broker.send(StatePart(request.id, name, items, is_last=True))
    except Exception:
        logger.exception("A request to describe %r could not be answered.", request.subject)
