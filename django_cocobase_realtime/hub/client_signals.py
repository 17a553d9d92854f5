"""The sending of Django signals about clients, in worker threads and in order per connection."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from django.dispatch import Signal

from ..delivery.query import requested_filters
from ..delivery.subscription import Subscription
from ..identity import Identity
from ..rooms.local_room import RoomMembership
from ..signals import client_connected, client_disconnected, room_joined, room_left, subscribed
from ..transport.connection import Connection
from ..utils.concurrency import run_in_threadpool, set_owner, spawn_task
from ..utils.repeated_log import omitted_text, repeated_log

logger = logging.getLogger(__name__)

# signals of one connection that can wait; then new ones are dropped
MAX_WAITING = 1000


class ClientSignals:
    """Sends the signals of the connections of one hub. Nothing is done without receivers."""

    def __init__(self) -> None:
        # calls that send signals, by connection, while a task makes them
        self._waiting: dict[str, deque[Callable[[], object]]] = {}

    def send_connected(self, connection: Connection) -> None:
        """Report that a connection is authenticated."""
        if client_connected.receivers:
            self._send(client_connected, connection, address=connection.address)

    def send_disconnected(self, connection: Connection, code: int) -> None:
        """Report that a connection was closed."""
        if client_disconnected.receivers:
            self._send(client_disconnected, connection, code=code)

    def send_subscribed(self, subscription: Subscription) -> None:
        """Report that a subscription has started."""
        if subscribed.receivers:
            self._send(
                subscribed,
                subscription.connection,
                subscription=subscription.name,
                collection=subscription.collection,
                filters=requested_filters(subscription.request.serialized),
            )

    def send_joined(self, membership: RoomMembership) -> None:
        """Report that a connection has joined a room, unless this was reported."""
        if not membership.is_reported:
            membership.is_reported = True
            if room_joined.receivers:
                self._send(room_joined, membership.connection, room=membership.key[1])

    def send_left(self, membership: RoomMembership) -> None:
        """Report that a connection has left a room, if it was reported that it has joined it."""
        if membership.is_reported:
            membership.is_reported = False
            if room_left.receivers:
                self._send(room_left, membership.connection, room=membership.key[1])

    def _send(self, signal: Signal, connection: Connection, **values: Any) -> None:
        identity = connection.identity
        if identity is None or not signal.has_listeners(Identity):
            return
        call = partial(
            signal.send_robust, Identity, connection=connection.id, identity=identity, **values
        )
        waiting = self._waiting.get(connection.id)
        if waiting is None:
            waiting = self._waiting[connection.id] = deque()
            spawn_task(self._run(connection, waiting))
        if len(waiting) < MAX_WAITING:
            waiting.append(call)
        elif (omitted := repeated_log.admit("signals", connection.id)) is not None:
            more = omitted_text(omitted)
            logger.warning("Signals of connection %s were dropped.%s", connection.id, more)

    async def _run(self, connection: Connection, waiting: deque[Callable[[], object]]) -> None:
        set_owner(connection.owner.background())
        try:
            while waiting:
                await run_in_threadpool(waiting.popleft())
        except Exception:
            logger.exception("Signals of connection %s could not be sent.", connection.id)
        finally:
            del self._waiting[connection.id]
