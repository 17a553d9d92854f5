"""Django signals about clients, sent in worker threads, so that receivers may use the ORM.

The signals of one connection are sent one after the other, in the order in which things happened.
They do not delay the connection, and a receiver that raises an exception, which is logged, does not
affect it. They are sent at most once: those of a process that is killed are lost.

All have ``connection``, the id of the connection, and ``identity``, its `Identity`. The sender is
the class `Identity`.
"""

from __future__ import annotations

from django.dispatch import Signal

# a client has authenticated; with ``address``, its IP address
client_connected = Signal()
# the connection was closed; with ``code``, the close code of the server or of the client
client_disconnected = Signal()
# a subscription has started; with ``subscription``, its name, ``collection`` and ``filters``
subscribed = Signal()
# the connection has joined a room; with ``room``, its name
room_joined = Signal()
# the connection has left a room, or was closed; with ``room``
room_left = Signal()
