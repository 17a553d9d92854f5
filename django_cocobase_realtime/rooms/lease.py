"""The lease by which a process holds its places in rooms: others know that it is still there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..conf import conf
from ..presence.base import presence
from .local_room import Seat

if TYPE_CHECKING:
    from .room_manager import Rooms


class Lease:
    """One a hub, beside its `Rooms`."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._leased_until = float("-inf")
        self._in_doubt = False
        self._unlisted: dict[Seat, None] = {}  # who is to be entered again

    async def hold(self) -> None:
        """Renew it where it is time; where it was lost, enter all its connections again."""
        loop = self._rooms.hub.loop
        if loop.time() < self._leased_until:
            return
        settings = conf.presence
        try:
            held = await self._rooms.call(presence().renew, self._rooms.server, settings.lease)
        except BaseException:
            self._in_doubt = True  # the answer that is lost may have been that it was lost
            raise
        self._leased_until = loop.time() + settings.lease / 3
        if self._in_doubt or not held:
            self._in_doubt = False
            seats = (seat for local in self._rooms.local.values() for seat in local.seats.values())
            self._unlisted = dict.fromkeys(seat for seat in seats if seat.entry is not None)
        try:
            while self._unlisted:
                seat = next(iter(self._unlisted))
                await self._enter_again(seat)
                self._unlisted.pop(seat, None)
        except BaseException:
            self._leased_until = float("-inf")  # the rest of them next time
            raise

    async def _enter_again(self, seat: Seat) -> None:
        entry, local = seat.entry, self._rooms.local.get(seat.key)
        if entry is None or local is None or local.seats.get(entry.connection) is not seat:
            return  # it left meanwhile
        member = local.members.get(entry.member)
        if member is not None:
            entry = replace(entry, state=member.state)
        entered = await self._rooms.call(presence().enter, entry)
        if entered is not None:
            self._rooms.members.spread([entered.move])
        if seat.connection.rooms.get(entry.key[1]) is not seat:  # it left meanwhile
            self._rooms.left.append((entry.key, entry.connection))

    def forget(self) -> None:
        """The hub rests: the next one to enter a room renews it first."""
        self._leased_until = float("-inf")
