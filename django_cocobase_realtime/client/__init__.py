"""The Python client, which needs asyncio and the package ``websockets``, but not Django.

::

    async with Realtime("wss://example.com/realtime", token="crk_…") as db:
        async for event in db.watch("posts", status="published"):
            print(event.event, event.id, event.data)

Each module imports only from those that are listed before it:

- ``errors``, ``messages``, ``interfaces``: the exception, the values that a program receives,
  and the types that the modules share.
- ``streams``: the results and iterators that a program awaits.
- ``cursors``: positions in streams, and the detection of duplicates.
- ``backoff``: the delay before a reconnection.
- ``requests``: requests and their replies on the current connection.
- ``subscription``, ``room``: subscriptions and rooms, which continue on the next connection.
- ``watch``, ``live``: the iterator and the list that a program reads a subscription with.
- ``protocol``: handles frames and returns frames, without I/O; has the subscriptions and rooms.
- ``connection``: opens sockets, and moves frames between them and the protocol.
- ``client``: the class that a program creates.
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
