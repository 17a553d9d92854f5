"""The hub's rooms: enters and leaves them for this process's connections, and tells what is said.

All calls to the presence backend go through one thread, in their order. ``members`` tells who
comes and goes, ``lease`` says that this process is still there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..conf import conf
from ..declarations.room import RoomGrant
from ..events import Broadcast
from ..models import PresenceRoom
from ..presence.base import PresenceEntry, RoomConnection, RoomKey, get_backend
from ..pubsub.names import room_group
from ..utils.concurrency import DatabaseThread, run_in_threadpool
from ..utils.transactions import database_for
from . import history
from .broadcasts import deliver_to_member, deliver_to_room
from .history import HistoryPage
from .lease import Lease
from .local_room import ApplyResult, JoinRequest, JoinResult, LocalRoom, RoomMembership
from .presence_sync import Members
from .room_frames import RoomFrames

if TYPE_CHECKING:
    from ..hub.hub import Hub
    from ..transport.connection import Connection

P = ParamSpec("P")
T = TypeVar("T")

MAX_EXPIRE_AGE = (
    5.0  # seconds after which whoever enters looks first who is gone: nobody may have looked
)


class RoomManager:
    """One a hub. ``server`` names it to the presence backend."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.server = uuid.uuid4().hex
        self.rooms: dict[RoomKey, LocalRoom] = {}
        self.pending_disconnects: list[RoomConnection] = []
        self.pending_leaves: list[RoomConnection] = []
        self.wake = asyncio.Event()
        self._expired_at = float("-inf")
        self._thread: DatabaseThread | None = None
        self.members = Members(self)
        self.lease = Lease(self)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the presence backend; calls are made one after the other, in this order."""
        if self._thread is None:
            self._thread = DatabaseThread(database_for(PresenceRoom))
        return await self._thread.run(function, *args, **kwargs)

    # coming

    async def join(
        self, connection: Connection, wish: JoinRequest, grant: RoomGrant
    ) -> JoinResult | None:
        """Put a connection into a room, again to change how it is there.

        None where it is not to be opened and nobody is there. Raises what the backend raises;
        then the connection is not in the room. `settle` must follow once the past was told.
        """
        assert connection.identity is not None
        key = (connection.identity.project, wish.room)
        seat = connection.rooms.get(wish.room)
        new = seat is None
        if seat is None:
            seat = connection.rooms[wish.room] = RoomMembership(connection, key, grant)
            self.rooms.setdefault(key, LocalRoom(key)).memberships[connection.id] = seat
        seat.grant = grant
        if grant.room.history_size:
            seat.buffered = seat.buffered or []
        try:
            if new:
                await self.hub.groups.acquire(room_group(*key))
            self.hub.ensure_presence_running()
            await self.expire(MAX_EXPIRE_AGE)
            await self.lease.renew_if_due()
            if connection.rooms.get(wish.room) is not seat:
                return None  # it was closed meanwhile
            joined = await self._enter(seat, wish)
        except BaseException:
            if new:
                self.remove_local(connection, wish.room, lost=False)
            else:
                self.finish_replay(connection, wish.room, None)  # it hears on as it did
            raise
        if joined is None:
            seat.live = seat.entry is None  # nothing to take back
            self.remove_local(connection, wish.room, lost=False)
        return joined

    async def _enter(self, seat: RoomMembership, wish: JoinRequest) -> JoinResult | None:
        backend, local = get_backend(), self.rooms[seat.key]
        title = wish.title or seat.grant.room.get_title(wish.room)
        place = (seat.key, seat.connection.id)
        if wish.presence:
            # calls are made in their order: what it left before is told before, or not at all
            self.pending_leaves = [each for each in self.pending_leaves if each != place]
            entry = _entry(seat, wish, title, self.server)
            entered = await self.call(backend.enter, entry, create=wish.create)
            if entered is None:
                return None
            seat.entry, info = entry, entered.info
            self.members.announce([entered.change], acting=seat.connection)
        else:
            if seat.entry is not None:
                seat.entry = None
                await self._leave_backend(place, acting=seat.connection)
            found = await self.call(backend.get_room, seat.key)
            if found is None and not wish.create:
                return None
            info = found  # type: ignore[assignment]
        if info is not None:
            local.title = info.title
        if local.version is None or (info is not None and local.version < info.version):
            await self.members.refresh(local)
        past = None
        if seat.grant.room.history_size:
            kept = seat.grant.room.history_size
            past = await run_in_threadpool(
                history.read_history, seat.key, min(wish.history, kept), wish.since, kept
            )
            if seat.grant.room.durable and local.position is None:
                local.position = past.position
        # from here on in one turn of the loop: what is told now, and what follows it
        seat.live = True
        sees = seat.grant.can_see_members
        return JoinResult(
            participants=len(local.members),
            members=list(local.members.values()) if sees else [],
            title=local.title or title,
            member=local.members.get(seat.entry.member) if seat.entry else None,
            history=past,
        )

    def finish_replay(self, connection: Connection, room: str, past: HistoryPage | None) -> None:
        """The past was told: tell what was said meanwhile, and from now on all that is said."""
        seat = connection.rooms.get(room)
        if seat is None or seat.buffered is None:
            return
        held, seat.buffered = seat.buffered, None
        for event in held:
            if past is None or event.seq is None or event.seq > past.position.seq:
                deliver_to_member(RoomFrames(event, title=self.rooms[seat.key].title), seat)

    async def expire(self, after: float) -> bool:
        """Remove those whose time is over, where that was not done for so many seconds."""
        if self.hub.loop.time() - self._expired_at < after:
            return False
        self._expired_at = self.hub.loop.time()
        self.members.announce(await self.call(get_backend().expire))
        return True

    # going

    async def leave(self, connection: Connection, room: str) -> None:
        """Leave a room, at once. Raises what the backend raises; the room is left all the same."""
        place = self.remove_local(connection, room, lost=False)
        if place is not None and place in self.pending_leaves:
            self.pending_leaves.remove(place)
            await self._leave_backend(place)

    async def _leave_backend(self, place: RoomConnection, acting: Connection | None = None) -> None:
        """Tell the backend who left, now; where it fails, by and by."""
        try:
            move = await self.call(get_backend().leave, *place)
        except BaseException:
            self.pending_leaves.append(place)
            raise
        self.members.announce([move], acting)

    def remove_local(
        self, connection: Connection, room: str, *, lost: bool
    ) -> RoomConnection | None:
        """Take a connection out here; the backend is told by and by (``tend``).

        ``lost``: a user's connection lingers, since he may be about to come back.
        """
        seat = connection.rooms.pop(room, None)
        if seat is None:
            return None
        local = self.rooms[seat.key]
        local.memberships.pop(connection.id, None)
        if not local.memberships:
            del self.rooms[seat.key]
            self.members.cancel_refresh(seat.key)
        self.hub.groups.release(room_group(*seat.key))
        place = (seat.key, connection.id)
        if seat.entry is None and seat.live:
            return None
        # whoever has no user comes back as somebody else
        lingers = lost and seat.entry is not None and seat.entry.member != connection.id
        (self.pending_disconnects if lingers else self.pending_leaves).append(place)
        self.wake.set()
        return place

    async def flush(self) -> None:
        """Tell the backend who was lost and who left. Raises what it raises, and keeps them."""
        lost, self.pending_disconnects = self.pending_disconnects, []
        if lost:
            try:
                await self.call(get_backend().mark_disconnected, lost, conf.presence.grace)
            except BaseException:
                self.pending_disconnects[:0] = lost
                raise
        while self.pending_leaves:
            key, connection = self.pending_leaves[0]
            move = await self.call(get_backend().leave, key, connection)
            if self.pending_leaves and self.pending_leaves[0] == (key, connection):
                del self.pending_leaves[0]
            self.members.announce([move])

    def close(self) -> None:
        """The hub rests."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None
        self.lease.reset()

    # while it is there

    async def set_state(self, connection: Connection, room: str, state: dict[str, Any]) -> None:
        """Set the state of this connection's member."""
        seat = connection.rooms.get(room)
        if seat is None or seat.entry is None:
            return
        move = await self.call(get_backend().set_state, seat.key, connection.id, state)
        self.members.announce([move], acting=connection)

    def get_title(self, connection: Connection, room: str) -> str:
        """What people see of a room that this connection is in."""
        seat = connection.rooms.get(room)
        return room if seat is None else self.rooms[seat.key].title

    # what is said

    def deliver(self, event: Broadcast) -> None:
        """A broadcast came."""
        local = self.rooms.get((event.project, event.room))
        if local is None:
            return
        news = local.apply_broadcast(event)
        if news is ApplyResult.APPLIED:
            deliver_to_room(local, event)
        elif news is ApplyResult.GAP:
            self.members.schedule_refresh(local)


def _entry(seat: RoomMembership, wish: JoinRequest, title: str, server: str) -> PresenceEntry:
    connection = seat.connection
    identity = connection.identity
    assert identity is not None
    id, name = connection.claimed or (None, identity.name)
    user = identity.user_key
    return PresenceEntry(
        key=seat.key,
        connection=connection.id,
        server=server,
        member=user or connection.id,
        name=identity.name if user is not None else name,
        title=title,
        state=wish.state,
        claimed=None if user is not None else id,
    )
