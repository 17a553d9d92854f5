"""The Python client: asyncio, the ``websockets`` package (extra ``client``), no Django.

::

    async with Realtime("wss://example.com/realtime", token="crk_…") as db:
        async for event in db.watch("posts", status="published"):
            print(event.event, event.id, event.data)

``backoff``, ``subscription``, ``room`` and ``protocol`` are the protocol without I/O,
``connection`` is the socket around them; ``client``, ``watch`` and ``live`` are what a program
holds.
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
