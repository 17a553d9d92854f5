"""The lease by which a process holds its places in rooms: others know that it is still there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..conf import conf
from ..presence.base import get_backend
from .local_room import RoomMembership

if TYPE_CHECKING:
    from .room_manager import RoomManager


class Lease:
    """One a hub, beside its `Rooms`."""

    def __init__(self, rooms: RoomManager) -> None:
        self._rooms = rooms
        self._leased_until = float("-inf")
        self._uncertain = False
        self._to_reenter: dict[RoomMembership, None] = {}  # who is to be entered again

    async def renew_if_due(self) -> None:
        """Renew it where it is time; where it was lost, enter all its connections again."""
        loop = self._rooms.hub.loop
        if loop.time() < self._leased_until:
            return
        settings = conf.presence
        try:
            held = await self._rooms.call(
                get_backend().renew_lease, self._rooms.server, settings.lease
            )
        except BaseException:
            self._uncertain = True  # the answer that is lost may have been that it was lost
            raise
        self._leased_until = loop.time() + settings.lease / 3
        if self._uncertain or not held:
            self._uncertain = False
            seats = (
                seat for local in self._rooms.rooms.values() for seat in local.memberships.values()
            )
            self._to_reenter = dict.fromkeys(seat for seat in seats if seat.entry is not None)
        try:
            while self._to_reenter:
                seat = next(iter(self._to_reenter))
                await self._reenter(seat)
                self._to_reenter.pop(seat, None)
        except BaseException:
            self._leased_until = float("-inf")  # the rest of them next time
            raise

    async def _reenter(self, seat: RoomMembership) -> None:
        entry, local = seat.entry, self._rooms.rooms.get(seat.key)
        if entry is None or local is None or local.memberships.get(entry.connection) is not seat:
            return  # it left meanwhile
        member = local.members.get(entry.member)
        if member is not None:
            entry = replace(entry, state=member.state)
        entered = await self._rooms.call(get_backend().enter, entry)
        if entered is not None:
            self._rooms.members.announce([entered.change])
        if seat.connection.rooms.get(entry.key[1]) is not seat:  # it left meanwhile
            self._rooms.pending_leaves.append((entry.key, entry.connection))

    def reset(self) -> None:
        """The hub rests: the next one to enter a room renews it first."""
        self._leased_until = float("-inf")
