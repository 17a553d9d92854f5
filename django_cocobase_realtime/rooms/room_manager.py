"""Rooms that connections of this process join, leave and broadcast to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ..declarations.room import RoomGrant
from ..events import Broadcast, Event, PresenceChange
from ..presence.base import PresenceEntry, RoomConnection, RoomInfo, RoomKey, get_backend
from ..pubsub.groups import GroupMemberships
from ..pubsub.layer import room_group
from ..transport.connection import Connection
from ..utils.concurrency import run_in_threadpool
from . import history
from .broadcasts import deliver_to_member, deliver_to_room
from .history import HistoryPage
from .local_room import ApplyResult, JoinRequest, JoinResult, LocalRoom, RoomMembership
from .presence_sync import PresenceSync
from .room_frames import RoomFrames

Work = Callable[[], Coroutine[Any, Any, None]]

MAX_EXPIRE_AGE = 5.0
"""Seconds after which a join first expires members: perhaps no process has done so."""


class RoomManager:
    """The rooms of this process. One per hub.

    ``publish`` sends an event to the other processes. ``start_task`` runs a function until the hub
    shuts down.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        groups: GroupMemberships,
        *,
        publish: Callable[[Event], None],
        start_task: Callable[[Work], None],
    ) -> None:
        # rooms that a connection here has joined
        self.rooms: dict[RoomKey, LocalRoom] = {}
        self.presence = PresenceSync(loop, self.rooms, publish)
        self._groups = groups
        self._start_task = start_task
        self._is_running = False
        # memberships by connection and room name
        self._memberships: dict[Connection, dict[str, RoomMembership]] = {}

    # connections

    def add_connection(self, connection: Connection) -> Mapping[str, RoomMembership]:
        """Return the connection's memberships by room name; the mapping stays up to date."""
        return self._memberships.setdefault(connection, {})

    def memberships(self, connection: Connection) -> list[RoomMembership]:
        """Return a connection's memberships."""
        return list(self._memberships.get(connection, {}).values())

    def remove_connection(self, connection: Connection, *, lost: bool) -> None:
        """Remove a connection from all its rooms (see `remove_local`)."""
        for room in list(self._memberships.get(connection, ())):
            self.remove_local(connection, room, lost=lost)
        self._memberships.pop(connection, None)

    async def stop(self) -> None:
        """Report who left, before the hub shuts down."""
        if self._is_running:
            self._is_running = False
            await self.presence.stop()

    # joining

    async def join(
        self, connection: Connection, request: JoinRequest, grant: RoomGrant
    ) -> JoinResult | None:
        """Add a connection to a room, or change how it is there.

        Returns None if the room has no members and the request does not open it. Raises what the
        presence backend raises; then the connection is not in the room. The caller must call
        `finish_replay` after it has sent the history.
        """
        assert connection.identity is not None
        key = (connection.identity.project, request.room)
        memberships = self._memberships.setdefault(connection, {})
        membership = memberships.get(request.room)
        is_new = membership is None
        if membership is None:
            membership = memberships[request.room] = RoomMembership(connection, key, grant)
            room = self.rooms.setdefault(key, LocalRoom(key))
            room.memberships[connection.id] = membership
        membership.grant = grant
        if grant.room.history_size:
            membership.buffered = membership.buffered or []
        try:
            if is_new:
                await self._groups.acquire(room_group(*key))
            self._ensure_running()
            await self.presence.expire(MAX_EXPIRE_AGE)
            await self.presence.renew_if_due()
            if self._membership(connection, request.room) is not membership:
                return None  # the connection was closed during these calls
            result = await self._enter(membership, request)
        except BaseException:
            if is_new:
                self.remove_local(connection, request.room, lost=False)
            else:
                self.finish_replay(connection, request.room, None)
            raise
        if result is None:
            membership.live = membership.entry is None  # the backend has nothing to take back
            self.remove_local(connection, request.room, lost=False)
        return result

    async def _enter(self, membership: RoomMembership, request: JoinRequest) -> JoinResult | None:
        room, declared = self.rooms[membership.key], membership.grant.room
        title = request.title or declared.get_title(request.room)
        if request.presence:
            info = await self._enter_listed(membership, request, title)
        else:
            info = await self._enter_unlisted(membership)
        if info is not None:
            room.title = info.title
        elif request.presence or not request.create:
            return None
        if room.version is None or (info is not None and room.version < info.version):
            await self.presence.refresh(room)
        page = None
        size = declared.history_size
        if size:
            page = await run_in_threadpool(
                history.read_history,
                membership.key,
                min(request.history, size),
                request.since,
                size,
            )
            if declared.durable and room.position is None:
                room.position = page.position
        # nothing may be awaited from here on: changes that follow are sent to the connection
        membership.live = True
        entry, members = membership.entry, list(room.members.values())
        return JoinResult(
            participants=len(members),
            members=members if membership.grant.can_see_members else [],
            title=room.title or title,
            member=room.members.get(entry.member) if entry else None,
            history=page,
        )

    async def _enter_listed(
        self, membership: RoomMembership, request: JoinRequest, title: str
    ) -> RoomInfo | None:
        connection, presence = membership.connection, self.presence
        # calls are made in order: an earlier departure is reported before this, or not at all
        here = (membership.key, connection.id)
        presence.pending_leaves = [left for left in presence.pending_leaves if left != here]
        entry = _entry(membership, request, title, presence.server)
        result = await presence.call(get_backend().enter, entry, create=request.create)
        if result is None:
            return None
        membership.entry = entry
        presence.announce([result.change], acting=connection)
        return result.info

    async def _enter_unlisted(self, membership: RoomMembership) -> RoomInfo | None:
        connection = membership.connection
        if membership.entry is not None:
            membership.entry = None
            await self.presence.leave((membership.key, connection.id), acting=connection)
        return await self.presence.call(get_backend().get_room, membership.key)

    def finish_replay(self, connection: Connection, room: str, page: HistoryPage | None) -> None:
        """Deliver the broadcasts buffered while the history was sent, then deliver live."""
        membership = self._membership(connection, room)
        if membership is None or membership.buffered is None:
            return
        buffered, membership.buffered = membership.buffered, None
        title = self.rooms[membership.key].title
        for event in buffered:
            if page is None or event.seq is None or event.seq > page.position.seq:
                deliver_to_member(RoomFrames(event, title=title), membership)

    def _ensure_running(self) -> None:
        if not self._is_running:
            self._is_running = True
            self._start_task(self.presence.run)

    # leaving

    async def leave(self, connection: Connection, room: str) -> None:
        """Remove a connection from a room, and report it at once.

        Raises what the presence backend raises; the connection has left all the same.
        """
        left = self.remove_local(connection, room, lost=False)
        if left is not None and left in self.presence.pending_leaves:
            self.presence.pending_leaves.remove(left)
            await self.presence.leave(left)

    def remove_local(
        self, connection: Connection, room: str, *, lost: bool
    ) -> RoomConnection | None:
        """Remove a connection from a room of this process; the backend is told soon.

        ``lost``: a user's connection that was lost stays in the list of members for a grace
        period, since it may come back.
        """
        membership = self._memberships.get(connection, {}).pop(room, None)
        if membership is None:
            return None
        local = self.rooms[membership.key]
        local.memberships.pop(connection.id, None)
        if not local.memberships:
            del self.rooms[membership.key]
            self.presence.cancel_refresh(membership.key)
        self._groups.release(room_group(*membership.key))
        if membership.entry is None and membership.live:
            return None
        left = (membership.key, connection.id)
        # a client without a user comes back as another member: there is nobody to wait for
        entry = membership.entry
        may_return = lost and entry is not None and entry.member != connection.id
        presence = self.presence
        (presence.pending_disconnects if may_return else presence.pending_leaves).append(left)
        presence.wake()
        return left

    # in a room

    async def set_state(self, connection: Connection, room: str, state: dict[str, Any]) -> None:
        """Set the state of a connection's member."""
        membership = self._membership(connection, room)
        if membership is None or membership.entry is None:
            return
        change = await self.presence.call(
            get_backend().set_state, membership.key, connection.id, state
        )
        self.presence.announce([change], acting=connection)

    def get_title(self, connection: Connection, room: str) -> str:
        """Return the title of a room that a connection is in."""
        membership = self._membership(connection, room)
        return room if membership is None else self.rooms[membership.key].title

    def _membership(self, connection: Connection, room: str) -> RoomMembership | None:
        return self._memberships.get(connection, {}).get(room)

    # events

    def receive(self, event: Broadcast | PresenceChange) -> None:
        """Handle an event that came over the channel layer."""
        if isinstance(event, PresenceChange):
            self.presence.receive(event)
            return
        room = self.rooms.get((event.project, event.room))
        if room is None:
            return
        result = room.apply_broadcast(event)
        if result is ApplyResult.APPLIED:
            deliver_to_room(room, event)
        elif result is ApplyResult.GAP:
            self.presence.schedule_refresh(room)


def _entry(
    membership: RoomMembership, request: JoinRequest, title: str, server: str
) -> PresenceEntry:
    connection = membership.connection
    identity = connection.identity
    assert identity is not None
    claimed_id, claimed_name = connection.claimed_user or (None, identity.name)
    user = identity.user_key
    return PresenceEntry(
        key=membership.key,
        connection=connection.id,
        server=server,
        member=user or connection.id,
        name=identity.name if user is not None else claimed_name,
        title=title,
        state=request.state,
        claimed=None if user is not None else claimed_id,
    )
