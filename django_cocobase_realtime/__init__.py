"""A realtime engine for Django: sends changes of models and messages in rooms to WebSockets.

The public names are imported at first use, so that this package can be imported before Django's
app registry is ready.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import abroadcast as abroadcast
    from .api import aconnections as aconnections
    from .api import broadcast as broadcast
    from .api import capture_disabled as capture_disabled
    from .api import connections as connections
    from .api import disconnect as disconnect
    from .api import notify_change as notify_change
    from .api import permissions_changed as permissions_changed
    from .api import send_to_user as send_to_user
    from .declarations.collection import Collection as Collection
    from .declarations.handler import on_change as on_change
    from .declarations.registry import register as register
    from .declarations.registry import register_room as register_room
    from .declarations.room import Room as Room

__version__ = "0.1.0"

# public name -> module that defines it
_PUBLIC = {
    "Collection": "declarations.collection",
    "Room": "declarations.room",
    "abroadcast": "api",
    "aconnections": "api",
    "broadcast": "api",
    "capture_disabled": "api",
    "connections": "api",
    "disconnect": "api",
    "notify_change": "api",
    "on_change": "declarations.handler",
    "permissions_changed": "api",
    "register": "declarations.registry",
    "register_room": "declarations.registry",
    "send_to_user": "api",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)
