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
from ..presence.base import Entry, Place, RoomKey, presence
from ..pubsub.names import room_group
from ..utils.concurrency import DatabaseThread, run
from ..utils.transactions import database_for
from . import history
from .broadcasts import tell_room, tell_seat
from .history import Past
from .lease import Lease
from .local_room import Joined, LocalRoom, News, Seat, Wish
from .presence_sync import Members
from .room_frames import RoomFrames

if TYPE_CHECKING:
    from ..hub.hub import Hub
    from ..transport.connection import Connection

P = ParamSpec("P")
T = TypeVar("T")

STALE = 5.0  # seconds after which whoever enters looks first who is gone: nobody may have looked


class Rooms:
    """One a hub. ``server`` names it to the presence backend."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.server = uuid.uuid4().hex
        self.local: dict[RoomKey, LocalRoom] = {}
        self.lost: list[Place] = []
        self.left: list[Place] = []
        self.wake = asyncio.Event()
        self._swept = float("-inf")
        self._thread: DatabaseThread | None = None
        self.members = Members(self)
        self.lease = Lease(self)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the presence backend; calls are made one after the other, in this order."""
        if self._thread is None:
            self._thread = DatabaseThread(database_for(PresenceRoom))
        return await self._thread.run(function, *args, **kwargs)

    # coming

    async def enter(self, connection: Connection, wish: Wish, grant: RoomGrant) -> Joined | None:
        """Put a connection into a room, again to change how it is there.

        None where it is not to be opened and nobody is there. Raises what the backend raises;
        then the connection is not in the room. `settle` must follow once the past was told.
        """
        assert connection.identity is not None
        key = (connection.identity.project, wish.room)
        seat = connection.rooms.get(wish.room)
        new = seat is None
        if seat is None:
            seat = connection.rooms[wish.room] = Seat(connection, key, grant)
            self.local.setdefault(key, LocalRoom(key)).seats[connection.id] = seat
        seat.grant = grant
        if grant.room.kept:
            seat.held = seat.held or []
        try:
            if new:
                await self.hub.groups.need(room_group(*key))
            self.hub.tend_rooms()
            await self.sweep(STALE)
            await self.lease.hold()
            if connection.rooms.get(wish.room) is not seat:
                return None  # it was closed meanwhile
            joined = await self._enter(seat, wish)
        except BaseException:
            if new:
                self.drop(connection, wish.room, lost=False)
            else:
                self.settle(connection, wish.room, None)  # it hears on as it did
            raise
        if joined is None:
            seat.live = seat.entry is None  # nothing to take back
            self.drop(connection, wish.room, lost=False)
        return joined

    async def _enter(self, seat: Seat, wish: Wish) -> Joined | None:
        backend, local = presence(), self.local[seat.key]
        title = wish.title or seat.grant.room.title_of(wish.room)
        place = (seat.key, seat.connection.id)
        if wish.presence:
            # calls are made in their order: what it left before is told before, or not at all
            self.left = [each for each in self.left if each != place]
            entry = _entry(seat, wish, title, self.server)
            entered = await self.call(backend.enter, entry, create=wish.create)
            if entered is None:
                return None
            seat.entry, info = entry, entered.info
            self.members.spread([entered.move], acting=seat.connection)
        else:
            if seat.entry is not None:
                seat.entry = None
                await self._depart(place, acting=seat.connection)
            found = await self.call(backend.info, seat.key)
            if found is None and not wish.create:
                return None
            info = found  # type: ignore[assignment]
        if info is not None:
            local.title = info.title
        if local.version is None or (info is not None and local.version < info.version):
            await self.members.read(local)
        past = None
        if seat.grant.room.kept:
            kept = seat.grant.room.kept
            past = await run(history.look, seat.key, min(wish.history, kept), wish.since, kept)
            if seat.grant.room.durable and local.position is None:
                local.position = past.position
        # from here on in one turn of the loop: what is told now, and what follows it
        seat.live = True
        sees = seat.grant.can_see_members
        return Joined(
            participants=len(local.members),
            members=list(local.members.values()) if sees else [],
            title=local.title or title,
            member=local.members.get(seat.entry.member) if seat.entry else None,
            past=past,
        )

    def settle(self, connection: Connection, room: str, past: Past | None) -> None:
        """The past was told: tell what was said meanwhile, and from now on all that is said."""
        seat = connection.rooms.get(room)
        if seat is None or seat.held is None:
            return
        held, seat.held = seat.held, None
        for event in held:
            if past is None or event.seq is None or event.seq > past.position.seq:
                tell_seat(RoomFrames(event, title=self.local[seat.key].title), seat)

    async def sweep(self, after: float) -> bool:
        """Remove those whose time is over, where that was not done for so many seconds."""
        if self.hub.loop.time() - self._swept < after:
            return False
        self._swept = self.hub.loop.time()
        self.members.spread(await self.call(presence().sweep))
        return True

    # going

    async def leave(self, connection: Connection, room: str) -> None:
        """Leave a room, at once. Raises what the backend raises; the room is left all the same."""
        place = self.drop(connection, room, lost=False)
        if place is not None and place in self.left:
            self.left.remove(place)
            await self._depart(place)

    async def _depart(self, place: Place, acting: Connection | None = None) -> None:
        """Tell the backend who left, now; where it fails, by and by."""
        try:
            move = await self.call(presence().leave, *place)
        except BaseException:
            self.left.append(place)
            raise
        self.members.spread([move], acting)

    def drop(self, connection: Connection, room: str, *, lost: bool) -> Place | None:
        """Take a connection out here; the backend is told by and by (``tend``).

        ``lost``: a user's connection lingers, since he may be about to come back.
        """
        seat = connection.rooms.pop(room, None)
        if seat is None:
            return None
        local = self.local[seat.key]
        local.seats.pop(connection.id, None)
        if not local.seats:
            del self.local[seat.key]
            self.members.forget(seat.key)
        self.hub.groups.release(room_group(*seat.key))
        place = (seat.key, connection.id)
        if seat.entry is None and seat.live:
            return None
        # whoever has no user comes back as somebody else
        lingers = lost and seat.entry is not None and seat.entry.member != connection.id
        (self.lost if lingers else self.left).append(place)
        self.wake.set()
        return place

    async def flush(self) -> None:
        """Tell the backend who was lost and who left. Raises what it raises, and keeps them."""
        lost, self.lost = self.lost, []
        if lost:
            try:
                await self.call(presence().linger, lost, conf.presence.grace)
            except BaseException:
                self.lost[:0] = lost
                raise
        while self.left:
            key, connection = self.left[0]
            move = await self.call(presence().leave, key, connection)
            if self.left and self.left[0] == (key, connection):
                del self.left[0]
            self.members.spread([move])

    def close(self) -> None:
        """The hub rests."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None
        self.lease.forget()

    # while it is there

    async def update(self, connection: Connection, room: str, state: dict[str, Any]) -> None:
        """Set the state of this connection's member."""
        seat = connection.rooms.get(room)
        if seat is None or seat.entry is None:
            return
        move = await self.call(presence().update, seat.key, connection.id, state)
        self.members.spread([move], acting=connection)

    def title(self, connection: Connection, room: str) -> str:
        """What people see of a room that this connection is in."""
        seat = connection.rooms.get(room)
        return room if seat is None else self.local[seat.key].title

    # what is said

    def deliver(self, event: Broadcast) -> None:
        """A broadcast came."""
        local = self.local.get((event.project, event.room))
        if local is None:
            return
        news = local.next(event)
        if news is News.NEXT:
            tell_room(local, event)
        elif news is News.GAP:
            self.members.read_soon(local)


def _entry(seat: Seat, wish: Wish, title: str, server: str) -> Entry:
    connection = seat.connection
    identity = connection.identity
    assert identity is not None
    id, name = connection.claimed or (None, identity.name)
    user = identity.user_key
    return Entry(
        key=seat.key,
        connection=connection.id,
        server=server,
        member=user or connection.id,
        name=identity.name if user is not None else name,
        title=title,
        state=wish.state,
        claimed=None if user is not None else id,
    )
