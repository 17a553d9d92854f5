"""A realtime engine for Django: watched models, rooms, one WebSocket.

The names below are the public face. They are imported at first use, so that this package can be
imported before Django's app registry is ready.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .collection import Collection
    from .publishing import (
        abroadcast,
        broadcast,
        disconnect,
        permissions_changed,
        publish,
        send_to_user,
        suppress,
    )
    from .registry import register
    from .room import Room, register_room

__version__ = "0.1.0"
__all__ = [
    "Collection",
    "Room",
    "abroadcast",
    "broadcast",
    "disconnect",
    "permissions_changed",
    "publish",
    "register",
    "register_room",
    "send_to_user",
    "suppress",
]

_HOMES = {
    "Collection": "collection",
    "Room": "room",
    "register": "registry",
    "register_room": "room",
    "abroadcast": "publishing",
    "broadcast": "publishing",
    "disconnect": "publishing",
    "permissions_changed": "publishing",
    "publish": "publishing",
    "send_to_user": "publishing",
    "suppress": "publishing",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
