"""The hub, which creates the topics, rooms and groups of one event loop and connects them."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ClassVar

import msgspec

from ..delivery.subscription import CatchUpPlan, Subscription
from ..delivery.topics import TopicManager
from ..events import (
    Broadcast,
    Change,
    DirectMessage,
    DisconnectRequested,
    Event,
    LogAppended,
    PermissionsChanged,
    PresenceChange,
    StateRequested,
    decode,
)
from ..identity import PROJECT_ROOM
from ..metrics import metrics
from ..pubsub.broker import broker
from ..pubsub.groups import JOIN_TIMEOUT_DURABLE, GroupMemberships
from ..pubsub.layer import CONTROL_GROUP
from ..rooms.local_room import RoomMembership
from ..rooms.room_frames import RoomFrames
from ..rooms.room_manager import RoomManager
from ..transport.connection import Connection
from ..transport.fan_out import FrameBatcher
from ..utils import kept_connections
from ..utils.concurrency import run_shielded, stop_keeping_connections
from ..wire.codes import CloseCode
from . import background_tasks
from .client_signals import ClientSignals
from .credential_checks import CredentialChecks
from .reauthorization import Reauthorizer

logger = logging.getLogger(__name__)

# close code of a connection that was lost without a close frame
ABNORMAL_CLOSURE = 1006

# the function that a background task runs
Work = Callable[[], Coroutine[Any, Any, None]]


class Hub:
    """The connections of one event loop, and the parts that deliver to them.

    `Hub.current` returns the hub of the running loop. It starts with the first connection, and
    shuts down after the last one. Events are dispatched without queries and without waiting.
    """

    # answers a request of another process to describe a hub; set by the consumers
    answer: ClassVar[Callable[[Hub, StateRequested], None]] = staticmethod(lambda hub, event: None)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # background tasks
        self._tasks: list[asyncio.Task[None]] = []
        # open connections by id
        self.connections: dict[str, Connection] = {}
        # joins events into one frame, for clients that accept that
        self.batcher = FrameBatcher(loop)
        # the groups of the channel layer that this process is in
        self.groups = GroupMemberships(self._on_payload)
        # the collections that this process follows
        self.topics = TopicManager(self.groups, broker.publish_to_others)
        # the rooms that connections have joined
        self.rooms = RoomManager(
            loop, self.groups, publish=broker.publish, start_task=self._start_task
        )
        # reauthorizes connections
        self.reauthorizer = Reauthorizer(loop, self.topics, self.rooms, self.end_membership)
        # sends Django signals
        self.signals = ClientSignals()

    @classmethod
    def current(cls) -> Hub:
        """Return the hub of the running event loop, and create it if there is none."""
        loop = asyncio.get_running_loop()
        hub = _hubs.get(loop)
        if hub is None:
            hub = _hubs[loop] = cls(loop)
        return hub

    @staticmethod
    def all() -> list[tuple[asyncio.AbstractEventLoop, Hub]]:
        """Return the event loops of this process that have a hub, and their hubs."""
        return list(_hubs.items())

    # connections

    async def open(self, connection: Connection) -> None:
        """Add a connection. The first one starts the hub's background tasks."""
        self.connections[connection.id] = connection
        self.signals.send_connected(connection)
        metrics.connections_opened += 1
        if not self._tasks:
            kept_connections.hold(self)
            broker.attach(self._loop, self.topics.get_listener)
            for work in (
                self.groups.listen,
                self.groups.sweep,
                background_tasks.trim_logs,
                partial(background_tasks.poll_log, self.topics),
                partial(background_tasks.send_cursor_heartbeats, self.topics),
                partial(background_tasks.verify_aggregates, self.topics),
                CredentialChecks(
                    self._loop, self.connections, self.topics, self.rooms, self.reauthorizer
                ).run,
            ):
                self._start_task(work)
            await self.groups.acquire(CONTROL_GROUP, JOIN_TIMEOUT_DURABLE)

    async def close(
        self, connection: Connection, *, lost: bool = True, code: int = ABNORMAL_CLOSURE
    ) -> None:
        """Remove a connection, its subscriptions and its rooms; shut down after the last one.

        If a request was in progress, call this again when it has ended, because it may have added
        a subscription or a room. ``lost`` is whether the client may reconnect, so that its user
        remains a member of rooms for the grace period. ``code`` is the close code.
        """
        was_open = self.connections.pop(connection.id, None) is not None
        for membership in self.rooms.memberships(connection):
            self.signals.send_left(membership)
        if was_open:
            self.signals.send_disconnected(connection, code)
        self.reauthorizer.cancel(connection)
        self.topics.remove_connection(connection)
        self.rooms.remove_connection(connection, lost=lost)
        must_close = self.topics.has_readers or self.rooms.has_threads
        if not self.connections and (self._tasks or must_close):
            # shielded, because the task that closes the last connection is often cancelled
            await run_shielded(self._shutdown(self._detach()))

    def start_task(self, work: Work) -> None:
        """Start a background task, which may end, and ends when the hub shuts down."""
        self._tasks = [task for task in self._tasks if not task.done()]
        self._start_task(work)

    def _start_task(self, work: Work) -> None:
        self._tasks.append(self._loop.create_task(background_tasks.run_forever(work)))

    def _detach(self) -> list[asyncio.Task[None]]:
        """Stop being the current hub immediately; return the tasks that must be cancelled."""
        tasks, self._tasks = self._tasks, []
        broker.detach(self._loop, self.topics.get_listener)
        self.topics.close()
        if _hubs.get(self._loop) is self:
            del _hubs[self._loop]
        return tasks

    async def _shutdown(self, tasks: list[asyncio.Task[None]]) -> None:
        try:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.rooms.stop()
            await self.groups.leave_all()
            await self.topics.wait_closed()
            await stop_keeping_connections(self)
        finally:
            kept_connections.release(self)
            self.rooms.close()  # also if the event loop ends first, which cancels this task

    # subscriptions

    def attach(self, subscription: Subscription, plan: CatchUpPlan | None = None) -> None:
        """Add a subscription to an opened topic. It is live immediately, or after ``plan``."""
        connection = subscription.connection
        is_stale = (
            subscription.permissions_version != connection.permissions_version
            or self.reauthorizer.is_running(connection)
        )
        self.topics.attach(subscription, plan, start=not is_stale)
        self.signals.send_subscribed(subscription)
        if is_stale:  # the permissions may have changed since they were evaluated
            self.reauthorizer.request([connection])

    def end_membership(self, membership: RoomMembership) -> None:
        """End a membership whose permission failed."""
        self.signals.send_left(membership)
        self.rooms.end_with_error(membership)

    # events

    def _on_payload(self, payload: bytes) -> None:
        try:
            event = decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            logger.warning("An event that cannot be decoded was ignored: %s", error)
            return
        try:
            self.dispatch(event)
        except Exception:
            logger.exception("An event could not be delivered.")

    def dispatch(self, event: Event) -> None:
        """Pass an event to the part that handles it."""
        match event:
            case Change():
                self.topics.receive(event)
            case LogAppended():
                self.topics.receive_announcement(event)
            case Broadcast() if event.is_for_all:
                self._deliver_direct(event)
            case Broadcast() | PresenceChange():
                self.rooms.receive(event)
            case DirectMessage():
                self._deliver_direct(event)
            case DisconnectRequested():
                self._disconnect(event)
            case StateRequested():
                Hub.answer(self, event)
            case PermissionsChanged():
                self.topics.expire_snapshots()
                self.reauthorizer.request(
                    c for c in self.connections.values() if event.concerns(c.identity)
                )

    def _deliver_direct(self, event: DirectMessage | Broadcast) -> None:
        """Deliver a message to all connections of a user, or of a project.

        Anonymous visitors and credentials that are restricted to some rooms do not receive it.
        """
        frames = RoomFrames(event)
        user = event.user if isinstance(event, DirectMessage) else None
        for connection in list(self.connections.values()):
            identity = connection.identity
            if identity is None or identity.project != event.project:
                continue
            if not identity.may_use_room(PROJECT_ROOM):
                continue
            if user is None or identity.user_key == user:
                text = frames.text(connection.dialect)
                if text is not None:
                    connection.writer.push_event(text)

    def _disconnect(self, event: DisconnectRequested) -> None:
        self.topics.expire_snapshots()
        for connection in list(self.connections.values()):
            identity = connection.identity
            if identity is not None and event.concerns(identity, connection.id):
                connection.close(CloseCode(event.code))


# current hubs by event loop
_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = weakref.WeakKeyDictionary()
