"""Descriptions of the connections, positions and rooms of one hub, made in its event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Literal

from ..declarations.operations import OPERATIONS_ROOM
from ..delivery.query import requested_document, requested_filters
from ..delivery.subscription import Subscription
from ..hub.hub import Hub
from ..identity import Identity
from ..live_queries.queries import LiveQuery, WindowQuery
from ..transport.connection import Connection
from .records import (
    ConnectionInfo,
    FollowerInfo,
    RoomInfo,
    RoomMemberInfo,
    ServerSummary,
    SubscriptionInfo,
)

# members of a room that are listed
MAX_MEMBERS = 100
# connections or rooms that are described in one iteration of the event loop
SLICE_SIZE = 50
# bytes of the requests of a connection up to which their filters are listed
MAX_FILTER_BYTES = 32 * 1024


def server_name() -> str:
    """Return the name of this process: ``HOST:PID``."""
    return f"{_host()}:{os.getpid()}"


@lru_cache(maxsize=1)
def _host() -> str:
    return socket.gethostname()


async def describe_connections(hub: Hub) -> AsyncIterator[ConnectionInfo]:
    """Yield descriptions of a hub's connections, without occupying its event loop for long."""
    for number, connection in enumerate(list(hub.connections.values()), 1):
        if connection.identity is not None and connection.id in hub.connections:
            yield describe_connection(hub, connection, connection.identity)
        if number % SLICE_SIZE == 0:
            await asyncio.sleep(0)


async def describe_followers(hub: Hub) -> AsyncIterator[FollowerInfo]:
    """Yield the positions of a hub in the streams that it follows."""
    for positions in hub.topics.positions().values():
        for stream, position in positions.items():
            yield FollowerInfo(stream, server_name(), position.epoch, position.seq)


async def describe_rooms(hub: Hub) -> AsyncIterator[RoomInfo]:
    """Yield the rooms that connections of a hub have joined, without their members' states."""
    for number, (key, room) in enumerate(list(hub.rooms.rooms.items()), 1):
        yield RoomInfo(
            *key,
            title=room.title,
            participants=len(room.members),
            members=tuple(
                RoomMemberInfo(member.id, member.name)
                for member in islice(room.members.values(), MAX_MEMBERS)
            ),
            connections=len(room.memberships),
            version=-1 if room.version is None else room.version,
        )
        if number % SLICE_SIZE == 0:
            await asyncio.sleep(0)


def describe_connection(hub: Hub, connection: Connection, identity: Identity) -> ConnectionInfo:
    """Return a description of a connection."""
    subscriptions: list[SubscriptionInfo] = []
    length = 0
    for subscription in hub.topics.subscriptions(connection):
        length += len(subscription.request.serialized)
        is_listed = length <= MAX_FILTER_BYTES
        subscriptions.append(_describe_subscription(hub, subscription, is_listed=is_listed))
    writer = connection.writer
    return ConnectionInfo(
        id=connection.id,
        server=server_name(),
        user_id=identity.user_key,
        user_name=identity.name,
        credential=_credential(identity),
        project=identity.project,
        address=connection.address,
        connected_at=datetime.fromtimestamp(connection.connected_at, UTC),
        dialect=connection.dialect,
        subscriptions=tuple(subscriptions),
        rooms=tuple(membership.key[1] for membership in hub.rooms.memberships(connection)),
        queue_bytes=writer.waiting_bytes,
        queue_frames=writer.waiting_frames,
    )


def _credential(identity: Identity) -> str:
    """Return the kind of a credential; of a key, which is named by its prefix, the whole name.

    The others contain a hash of a session's key, or the subject of a token.
    """
    kind = identity.credential.partition(":")[0]
    return identity.credential if kind == "key" else kind


def _describe_subscription(
    hub: Hub, subscription: Subscription, *, is_listed: bool
) -> SubscriptionInfo:
    request = subscription.request
    live = request.live
    return SubscriptionInfo(
        name=subscription.name,
        collection=subscription.collection,
        filters=requested_filters(request.serialized) if is_listed else None,
        kind=_kind(live),
        lag=_lag(hub, subscription),
        document=requested_document(request.serialized) if is_listed else None,
    )


def _kind(live: LiveQuery | None) -> Literal["events", "window", "aggregate"]:
    if live is None:
        return "events"
    return "window" if isinstance(live, WindowQuery) else "aggregate"


def _lag(hub: Hub, subscription: Subscription) -> int | None:
    """Return the number of events that a subscription has not handled; None if it is not known."""
    topic = hub.topics.topics.get(subscription.stream)
    if topic is None:
        return None
    if subscription.catchup is None:
        live_query = topic.live_queries.find(subscription)
        waiting = 0 if live_query is None else live_query.waiting
        return waiting + len(subscription.pending_row_checks or ())
    plan, position = subscription.catchup.plan, topic.position
    after = None if plan is None else plan.after
    if after is None or position is None or after.epoch != position.epoch:
        return None
    return max(position.seq - after.seq, 0)


async def describe_server(hub: Hub) -> AsyncIterator[ServerSummary]:
    """Yield the totals of a hub, counted without occupying its event loop for long."""
    connections = subscriptions = queue_bytes = 0
    for number, connection in enumerate(list(hub.connections.values()), 1):
        if connection.identity is not None:
            connections += 1
            subscriptions += len(hub.topics.subscriptions(connection))
            queue_bytes += connection.writer.waiting_bytes
        if number % SLICE_SIZE == 0:
            await asyncio.sleep(0)
    rooms = sum(room != OPERATIONS_ROOM for _, room in hub.rooms.rooms)
    yield ServerSummary(server_name(), connections, subscriptions, rooms, queue_bytes)
