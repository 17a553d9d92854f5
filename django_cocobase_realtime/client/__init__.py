"""The Python client, which needs asyncio and the package ``websockets``, but not Django.

::

    async with Realtime("wss://example.com/realtime", token="crk_…") as db:
        async for event in db.watch("posts", status="published"):
            print(event.event, event.id, event.data)

Each module imports only from those that are listed before it:

- ``errors``, ``messages``, ``interfaces``: the exceptions, the values that a program receives,
  and the types that the modules share.
- ``validation``: refuses what the server would refuse.
- ``streams``: the results and iterators that a program awaits.
- ``frozen``: values that several readers share.
- ``cursors``: positions in streams, and the detection of duplicates.
- ``backoff``: the delay before a reconnection.
- ``rates``, ``requests``: requests and their replies on the current connection, in order and at
  the rate that the server allows.
- ``outbox``, ``own_state``: the broadcasts and the state that a room sends.
- ``subscription``, ``room``: subscriptions and rooms, which continue on the next connection.
- ``documents``: the documents of a list, in order.
- ``store``: a value that a subscription keeps up to date, and its readers.
- ``watch``, ``live``, ``count``: the iterator, the list and the aggregates that a program reads a
  subscription with.
- ``protocol``: handles frames and returns frames, without I/O; has the subscriptions and rooms.
- ``tokens``, ``handshake``: the tokens of the program, and the address and options of sockets.
- ``connection``: opens sockets, and moves frames between them and the protocol.
- ``lifecycle``, ``client``: the class that a program creates: its life, and what it can request.
- ``background_loop``, ``items``, ``sync``: the same without asyncio, in a thread.
"""

from . import sync
from .client import Realtime
from .count import Count, Group
from .errors import InvalidRequest, RealtimeError
from .live import Live
from .messages import Document, Event, Message, Presence
from .room import Room
from .watch import Watch

__all__ = [
    "Count",
    "Document",
    "Event",
    "Group",
    "InvalidRequest",
    "Live",
    "Message",
    "Presence",
    "Realtime",
    "RealtimeError",
    "Room",
    "Watch",
    "sync",
]
