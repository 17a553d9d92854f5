"""The Python client: asyncio, the ``websockets`` package (extra ``client``), no Django.

::

    async with Realtime("wss://example.com/realtime", token="crk_…") as db:
        async for event in db.watch("posts", status="published"):
            print(event.event, event.id, event.data)

Each module imports only from those above it:

- ``errors``, ``messages``, ``interfaces``: the exception, the values that a program receives,
  and the types that the modules share.
- ``streams``: what a program awaits. ``cursors``: positions and duplicates. ``backoff``: delays.
- ``requests``: requests and their replies on the current connection.
- ``subscription``, ``room``: state that outlives connections.
- ``watch``, ``live``: what a program gets of a subscription.
- ``protocol``: frames in, frames out; it owns the subscriptions and rooms, and does no I/O.
- ``connection``: the socket around the protocol. ``client``: the public entry point.
"""

from .client import Realtime
from .errors import RealtimeError
from .live import Live
from .messages import Document, Event, Message, Presence
from .room import Room
from .watch import Watch

__all__ = [
    "Document",
    "Event",
    "Live",
    "Message",
    "Presence",
    "Realtime",
    "RealtimeError",
    "Room",
    "Watch",
]
