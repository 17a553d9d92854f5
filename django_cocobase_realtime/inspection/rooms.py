"""The rooms that connections of all server processes have joined."""

from __future__ import annotations

from dataclasses import replace

from asgiref.sync import async_to_sync

from .records import RoomInfo
from .requests import DEFAULT_TIMEOUT, request_all


async def arooms_info(*, timeout: float = DEFAULT_TIMEOUT) -> list[RoomInfo]:
    """Return the rooms that connections of any process have joined, by project and name.

    A room whose members are all in their grace period is not listed.
    """
    rooms: dict[tuple[str, str], RoomInfo] = {}
    for room in await request_all("rooms", RoomInfo, timeout):
        key = room.project, room.name
        other = rooms.get(key)
        if other is None:
            rooms[key] = room
        else:  # the members that were read last
            newest = max(room, other, key=lambda info: info.version)
            rooms[key] = replace(newest, connections=room.connections + other.connections)
    return [rooms[key] for key in sorted(rooms)]


def rooms_info(*, timeout: float = DEFAULT_TIMEOUT) -> list[RoomInfo]:
    """Return the same as `arooms_info`, for synchronous code."""
    result: list[RoomInfo] = async_to_sync(arooms_info)(timeout=timeout)
    return result
