"""The TCP connection behind the ``send`` of an ASGI server, which is found by its attributes.

If it is not found, the functions here do nothing. This is so with a wrapped ``send``, and with
granian, which drops a connection itself when the application has ended.
"""

from __future__ import annotations

from typing import Any

from .daphne import find_protocol


def find_transport(send: Any) -> Any:
    """Return the transport of asyncio or Twisted behind ``send``; None if it is not found."""
    owner: Any = find_protocol(send)
    if owner is None:
        owner = getattr(send, "__self__", None)
        if hasattr(owner, "handshake"):  # hypercorn: a stream, its protocol, the TCP connection
            for _ in range(2):
                owner = getattr(getattr(owner, "send", None), "__self__", None)
            owner = getattr(owner, "writer", None)
    return getattr(owner, "transport", None)


def count_unsent_bytes(transport: Any) -> int:
    """Return about how many bytes asyncio has not passed to the operating system yet.

    asyncio closes a socket only when they are sent. Returns 0 for other transports.
    """
    if not hasattr(transport, "get_write_buffer_size"):
        return 0
    unsent = int(transport.get_write_buffer_size())
    # with TLS, there is a transport for the encrypted bytes below the one of the protocol
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return unsent + (0 if below is None else count_unsent_bytes(below))


def is_open(transport: Any) -> bool:
    """Return whether a transport of asyncio has a socket that it will not close at once."""
    if not hasattr(transport, "is_closing"):
        return False
    return not transport.is_closing() or count_unsent_bytes(transport) > 0


def drop(transport: Any) -> None:
    """Close a connection at once, and discard the unsent bytes."""
    if hasattr(transport, "abortConnection"):  # Twisted
        transport.abortConnection()
    elif is_open(transport):  # asyncio fails to abort a transport that is closed
        transport.abort()
