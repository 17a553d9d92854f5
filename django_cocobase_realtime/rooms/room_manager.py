"""The rooms of one process: joining, leaving, and the delivery of their events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from ..declarations.room import Room, RoomGrant
from ..events import Broadcast, Event, PresenceChange
from ..presence.base import PresenceEntry, RoomConnection, RoomInfo, RoomKey, get_backend
from ..pubsub.groups import GroupMemberships
from ..pubsub.layer import room_group
from ..transport.connection import NATIVE, Connection
from ..transport.waiting_frames import FrameBuffer, size_of
from ..utils.concurrency import run_for_subject, run_in_threadpool
from ..wire import frames, sdk_frames
from ..wire.codes import CloseCode, ErrorCode
from . import history
from .broadcasts import deliver_to_room, replay
from .held_frames import HeldFrames
from .history import HistoryPage
from .local_room import ApplyResult, JoinRequest, JoinResult, LocalRoom, RoomMembership
from .presence_sync import PresenceSync

# the function that a background task runs
Work = Callable[[], Coroutine[Any, Any, None]]

# message of the error with which a membership ends
ENDED = "You left the room, because of an error in the server's code; join again later."
# a join removes expired members if this process has not done so for this number of seconds
MAX_EXPIRE_AGE = 5.0


class RoomManager:
    """The rooms that connections of one hub have joined."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        groups: GroupMemberships,
        *,
        publish: Callable[[Event], None],
        start_task: Callable[[Work], None],
    ) -> None:
        # rooms that at least one connection has joined
        self.rooms: dict[RoomKey, LocalRoom] = {}
        # keeps the rooms and the presence backend up to date with each other
        self.presence = PresenceSync(loop, self.rooms, publish)
        # groups of the channel layer that this process is in
        self._groups = groups
        # starts a background task, which runs until the hub shuts down
        self._start_task = start_task
        # whether the background task of `presence` was started
        self._is_running = False
        # memberships by connection and name of the room
        self._memberships: dict[Connection, dict[str, RoomMembership]] = {}
        # frames of connections that are suspended
        self._held: dict[Connection, HeldFrames] = {}

    # connections

    def add_connection(self, connection: Connection) -> Mapping[str, RoomMembership]:
        """Return a mapping of a connection's memberships by room, which is kept up to date."""
        return self._memberships.setdefault(connection, {})

    @property
    def membership_count(self) -> int:
        """Number of memberships of all connections."""
        return sum(map(len, self._memberships.values()))

    def memberships(self, connection: Connection) -> list[RoomMembership]:
        """Return a list of a connection's memberships."""
        return list(self._memberships.get(connection, {}).values())

    def remove_connection(self, connection: Connection, *, lost: bool) -> None:
        """Remove a connection from all its rooms, see `remove_local`."""
        for room in list(self._memberships.get(connection, ())):
            self.remove_local(connection, room, lost=lost)
        self._memberships.pop(connection, None)
        waiting = self._held.pop(connection, None)
        if waiting is not None:
            waiting.clear()

    def suspend(self, connection: Connection) -> None:
        """Hold the frames of a connection's rooms until `resume`."""
        memberships = self._memberships.get(connection)
        if memberships and connection not in self._held:
            waiting = self._held[connection] = HeldFrames(connection.writer)
            for membership in memberships.values():
                membership.held_frames = waiting

    def resume(self, connection: Connection) -> None:
        """Send the held frames of a connection, and hold no more."""
        waiting = self._held.pop(connection, None)
        if waiting is not None:
            for membership in self.memberships(connection):
                membership.held_frames = None
            waiting.flush()

    async def wait_resumed(self, connection: Connection) -> None:
        """Wait until a connection is not suspended."""
        while (waiting := self._held.get(connection)) is not None:
            await waiting.wait()

    async def stop(self) -> None:
        """Report departures and stop, before the hub shuts down."""
        if self._is_running:
            self._is_running = False
            await self.presence.stop()

    @property
    def has_threads(self) -> bool:
        """Whether there are threads that `close` must end."""
        return self.presence.has_thread

    def close(self) -> None:
        """End the threads."""
        self.presence.close()

    # joining

    async def join(
        self, connection: Connection, request: JoinRequest, grant: RoomGrant
    ) -> JoinResult | None:
        """Add a connection to a room, or change its state or presence if it is in the room.

        Returns None if the room has no members and the request does not open it. Raises the
        exceptions of the presence backend; the connection is not added then. The caller must send
        the result, and then call `complete_join`.
        """
        assert connection.identity is not None
        key = (connection.identity.project, request.room)
        memberships = self._memberships.setdefault(connection, {})
        membership = memberships.get(request.room)
        is_new = membership is None
        if membership is None:
            membership = memberships[request.room] = RoomMembership(connection, key, grant)
            membership.held_frames = self._held.get(connection)
            room = self.rooms.setdefault(key, LocalRoom(key))
            room.memberships[connection.id] = membership
        membership.grant = grant
        if grant.room.history_size and membership.buffered is None:
            membership.buffered = FrameBuffer(connection.writer)
        try:
            if is_new:
                await self._groups.acquire(room_group(*key))
            self._ensure_running()
            title = request.title or await _title(grant.room, request.room)
            await self.presence.expire(MAX_EXPIRE_AGE)
            await self.presence.renew_if_due()
            if self.membership(connection, request.room) is not membership:
                return None  # the connection was closed during these calls
            result = await self._enter(membership, request, title)
        except BaseException:
            if is_new:
                self.remove_local(connection, request.room, lost=False)
            else:
                self._finish_replay(membership, None)
            raise
        if result is None:
            # `live` without an entry: `remove_local` then reports no departure to the backend
            membership.live = membership.entry is None
            self.remove_local(connection, request.room, lost=False)
        return result

    async def _enter(
        self, membership: RoomMembership, request: JoinRequest, title: str
    ) -> JoinResult | None:
        """Enter the room in the backend, and read its members and its history."""
        room, declared = self.rooms[membership.key], membership.grant.room
        is_member = request.presence and membership.grant.can_be_member
        if is_member:
            info = await self._enter_listed(membership, request, title)
        else:
            info = await self._enter_unlisted(membership)
        if info is not None:
            room.title = info.title
        elif is_member or not request.create:
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
        await membership.wait_resumed()
        if not room.has(membership):
            return None  # its permission refuses now, or the connection was closed
        # no `await` from here on, so that the connection is sent all changes after this list
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
        """Enter the room as a member."""
        connection, presence = membership.connection, self.presence
        # an earlier departure that is not reported yet must not be reported after this
        here = (membership.key, connection.id)
        presence.pending_leaves = [
            departed for departed in presence.pending_leaves if departed != here
        ]
        entry = _entry(membership, request, title, presence.server)
        result = await presence.call(get_backend().enter, entry, create=request.create)
        if result is None:
            return None
        membership.entry = entry
        presence.announce([result.change], acting=connection)
        return result.info

    async def _enter_unlisted(self, membership: RoomMembership) -> RoomInfo | None:
        """Leave the list of members, if the connection is in it, and read the room."""
        connection = membership.connection
        if membership.entry is not None:
            membership.entry = None
            await self.presence.leave((membership.key, connection.id), acting=connection)
        return await self.presence.call(get_backend().get_room, membership.key)

    async def complete_join(
        self,
        connection: Connection,
        room: str,
        unlisted: Sequence[str],
        page: HistoryPage | None,
    ) -> None:
        """Send what a connection that has joined must get before it is live.

        ``unlisted`` are the ids of members that were not sent yet.
        """
        membership = self.membership(connection, room)
        if membership is None:
            return
        local, writer = self.rooms[membership.key], connection.writer
        with writer.holding(0 if page is None else size_of(event for _, event in page.first)):
            await self._send_members(local, membership, unlisted)
        if page is not None and not await replay(local, membership, page):
            connection.close(CloseCode.POSITION_LOST)
        self._finish_replay(membership, page)

    async def _send_members(
        self, room: LocalRoom, membership: RoomMembership, unlisted: Sequence[str]
    ) -> None:
        """Send further members, as they are now, in frames that are small enough."""
        writer = membership.connection.writer
        while unlisted:
            await writer.wait_drained()
            await membership.wait_resumed()
            if not room.has(membership):
                return
            present = [room.members[id] for id in unlisted if id in room.members]
            page, following = frames.members_page(present)
            unlisted = [member.id for member in following]
            frame = frames.members(membership.key[1], page, more=bool(unlisted))
            writer.push(frames.encode(frame))

    def _finish_replay(self, membership: RoomMembership, page: HistoryPage | None) -> None:
        """Deliver the broadcasts that were buffered during the replay, and then deliver live."""
        buffered, membership.buffered = membership.buffered, None
        if buffered is not None:
            after = None if page is None else page.position.seq
            buffered.flush(after, membership.push_event)

    def _ensure_running(self) -> None:
        if not self._is_running:
            self._is_running = True
            self._start_task(self.presence.run)

    # leaving

    async def leave(self, connection: Connection, room: str) -> None:
        """Remove a connection from a room, and report it to the presence backend.

        Raises the exceptions of the backend. The connection has left even then.
        """
        departed = self.remove_local(connection, room, lost=False)
        if departed is not None and departed in self.presence.pending_leaves:
            self.presence.pending_leaves.remove(departed)
            await self.presence.leave(departed)

    def remove_local(
        self, connection: Connection, room: str, *, lost: bool
    ) -> RoomConnection | None:
        """Remove a connection from a room, and schedule that the presence backend is informed.

        With ``lost``, a user remains a member for the grace period, because the client may
        reconnect. Returns the departure that is scheduled, or None.
        """
        membership = self._memberships.get(connection, {}).pop(room, None)
        if membership is None:
            return None
        membership.has_ended, membership.held_frames = True, None
        if membership.buffered is not None:
            membership.buffered.clear()
            membership.buffered = None
        local = self.rooms[membership.key]
        local.memberships.pop(connection.id, None)
        if not local.memberships:
            del self.rooms[membership.key]
            self.presence.cancel_refresh(membership.key)
        self._groups.release(room_group(*membership.key))
        if membership.entry is None and membership.live:
            return None
        departed = (membership.key, connection.id)
        # a client without a user becomes another member when it reconnects, so do not wait for it
        entry = membership.entry
        may_return = lost and entry is not None and entry.member != connection.id
        presence = self.presence
        (presence.pending_disconnects if may_return else presence.pending_leaves).append(departed)
        presence.wake()
        return departed

    def end_with_error(self, membership: RoomMembership) -> None:
        """Remove a connection from a room whose permission failed, and report this to its client.

        The presence backend is informed later.
        """
        connection, room = membership.connection, membership.key[1]
        self.remove_local(connection, room, lost=False)
        if connection.dialect == NATIVE:
            frame = frames.error(ErrorCode.INTERNAL_ERROR, ENDED, room=room)
        else:
            frame = sdk_frames.error(ENDED)
        connection.writer.push(frames.encode(frame))

    # in a room

    async def set_state(self, connection: Connection, room: str, state: dict[str, Any]) -> None:
        """Set the state of a connection's member."""
        membership = self.membership(connection, room)
        if membership is None or membership.entry is None:
            return
        change = await self.presence.call(
            get_backend().set_state, membership.key, connection.id, state
        )
        self.presence.announce([change], acting=connection)

    def membership(self, connection: Connection, room: str) -> RoomMembership | None:
        """Return the membership of a connection in a room, if it is in the room."""
        return self._memberships.get(connection, {}).get(room)

    # events

    def receive(self, event: Broadcast | PresenceChange) -> None:
        """Handle an event that arrived through the channel layer."""
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


async def _title(declared: Room, room: str) -> str:
    """Return the title of a room, in a thread if the project's code decides it."""
    if declared.has_custom_title:
        return await run_for_subject(declared, declared.title_of, room)
    return declared.title_of(room)


def _entry(
    membership: RoomMembership, request: JoinRequest, title: str, server: str
) -> PresenceEntry:
    """Return the entry with which a connection enters a room."""
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
