"""Carries out what a session wants of collections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ..declarations.authorization import Grant
from ..declarations.registry import UnknownCollection, registry
from ..hub.hub import Hub
from ..protocol import effects as do
from ..transport.connection import Connection
from ..utils.concurrency import run_in_threadpool

REFUSAL_STEP = 0.05  # seconds, to whole ones of which the time of a refusal is rounded up


async def perform(hub: Hub, connection: Connection, effect: do.Effect) -> Any:
    """One effect's result, as ``session.effects`` has it. Raises what the database raises."""
    match effect:
        case do.AuthorizeCollection(name, filters):
            return await _authorize(hub, connection, name, filters)
        case do.OpenTopic(collection):
            return await hub.topics.open(collection)
        case do.AttachSubscription(subscription, begin):
            hub.attach(subscription, begin)
        case do.DetachSubscription(subscription):
            hub.detach(subscription)
        case do.Reauthorize():
            hub.request_reauthorization([connection])
    return None


async def _authorize(
    hub: Hub, connection: Connection, name: str, filters: Mapping[str, Any]
) -> Grant | None:
    await hub.wait_authorized(connection)
    identity, asked = connection.identity, time.monotonic()
    assert identity is not None

    def decide() -> Grant | None:
        try:
            collection = registry.get(name)
        except UnknownCollection:
            return None
        return collection.grant(identity, filters)

    # an unknown collection takes the same way as a forbidden one, and the same time
    grant = await run_in_threadpool(decide)
    if grant is None:
        await asyncio.sleep(REFUSAL_STEP - (time.monotonic() - asked) % REFUSAL_STEP)
    return grant
